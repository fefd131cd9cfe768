"""A step that claims to be faster is compared with the ordinary one before a training trusts it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.training.capture import COMPARED_UPDATES, ComparedStep
from pipeline.training.loop import Step
from pipeline.training.sgd import Sgd
from pipeline.training.state import TrainingState

TRUSTED = 1
UPDATES = TRUSTED + COMPARED_UPDATES + 2


class Counted:
    """The ordinary step, counted; `spoil` changes what it leaves."""

    def __init__(self, state: TrainingState, spoil: Callable[[nn.Module], None] = lambda m: None):
        self.step = Step(state.model, state.optimizer, "float32", 0.0, 1)
        self.model, self.spoil, self.calls = state.model, spoil, 0

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        result = self.step(images, labels)
        if self.calls > TRUSTED:
            self.spoil(self.model)
        return result


def begun() -> TrainingState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    return TrainingState(model, Sgd(model.parameters(), 0.1, 0.9, 0.0))


def trained(make: Callable[[TrainingState], Callable[..., object]]) -> dict[str, Tensor]:
    state = begun()
    step = make(state)
    generator = torch.Generator().manual_seed(1)
    for _ in range(UPDATES):
        step(torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 3)
    return state.model.state_dict()


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def test_a_fast_step_that_does_the_same_is_used_and_no_bit_changes(
    capfd: pytest.CaptureFixture[str],
):
    steps: list[Counted] = []

    def compared(state: TrainingState) -> ComparedStep:
        steps.extend((Counted(state), Counted(state)))
        return ComparedStep(steps[0], steps[1], state.changed_by_updates, TRUSTED)

    assert_equal(trained(compared), trained(Counted))
    assert [step.calls for step in steps] == [UPDATES, COMPARED_UPDATES]
    assert capfd.readouterr().err == ""


def forget_the_rate(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.add_(0.01)


def lose_a_statistic(model: nn.Module) -> None:
    model[1].running_mean.zero_()


def fail(model: nn.Module) -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("spoil", [forget_the_rate, lose_a_statistic, fail])
def test_one_that_does_something_else_is_told_and_never_used(
    spoil: Callable[[nn.Module], None], capfd: pytest.CaptureFixture[str]
):
    def compared(state: TrainingState) -> ComparedStep:
        return ComparedStep(
            Counted(state, spoil), Counted(state), state.changed_by_updates, TRUSTED
        )

    assert_equal(trained(compared), trained(Counted))
    assert "the captured training step is not used" in capfd.readouterr().err
