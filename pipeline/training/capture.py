"""A training step as a CUDA graph: one launch instead of thousands for a small network.

On an H100 it ended with the bits of the eager step (benchmarks/RESULTS.md). No training relies on that: its
first captured updates are compared with eager ones.
"""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.training.loop import Step, Update

COMPARED_UPDATES = 2
# relative to an update's norm: another algorithm's sums differ in their last bits, whereas a wrong
# rate, batch or weight makes a difference as large as the update
MOST_DIFFERENCE = 0.02
ROUNDING = 1e-5  # relative to a tensor's norm, for those that an update hardly changes
EAGER_UPDATES = 3  # the optimizer's buffers and cuDNN's choices are made before the capture


class CapturedStep:
    """Does what `step` does; the first updates run eagerly, the others from a graph.

    Inputs are copied to fixed buffers, so batches may lie anywhere in memory. The results are valid
    until the next update.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._eager_left = EAGER_UPDATES
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss and how many predictions were wrong, as `Step` does."""
        if self._eager_left:
            self._eager_left -= 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = self._step(images, labels)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        if self._graph is None:
            self._capture(images, labels)
        assert self._graph is not None
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._result

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):  # records, does not run
            self._result = self._step(self._images, self._labels)


class ComparedStep:
    """Runs `fast` once some of its updates were found to agree with those of `slow`; else `slow`.

    The first `trusted` updates run `fast` without comparison; a compared update leaves the state as
    `slow` leaves it. `state` returns the tensors that an update changes.
    """

    def __init__(
        self, fast: Update, slow: Update, state: Callable[[], Sequence[Tensor]], trusted: int
    ) -> None:
        self._fast, self._slow, self._state = fast, slow, state
        self._trusted, self._left = trusted, COMPARED_UPDATES
        self._chosen = fast

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss and how many predictions were wrong, as `Step` does."""
        if self._trusted:
            self._trusted -= 1
            return self._fast(images, labels)
        if not self._left:
            return self._chosen(images, labels)
        self._left -= 1
        before = [tensor.detach().clone() for tensor in self._state()]
        why = self._try(images, labels)
        with torch.no_grad():
            for tensor, value in zip(self._state(), before, strict=True):
                tensor.copy_(value)
        result = self._slow(images, labels)
        if not why:
            why = self._differs(before, result[0])
        if why:
            self._left, self._chosen = 0, self._slow
            print(
                f"warning: the captured training step is not used, since {why}: the training goes on "
                "with the ordinary one, more slowly; please report this device",
                file=sys.stderr,
                flush=True,
            )
        return result

    def _try(self, images: Tensor, labels: Tensor) -> str:
        """Runs the fast step and keeps its outcome; returns why it failed, or ''."""
        try:
            loss, wrong = (value.clone() for value in self._fast(images, labels))
        except RuntimeError as error:
            return f"it fails ({str(error).strip().splitlines()[0]})"
        self._found = [tensor.detach().clone() for tensor in self._state()], loss, wrong
        return ""

    def _differs(self, before: Sequence[Tensor], loss: Tensor) -> str:
        """Returns how far the fast step's update is from the slow one's if it is too far, else ''."""
        after, fast_loss, _ = self._found
        worst = abs(float(fast_loss - loss)) / max(abs(float(loss)), 1e-12)
        for old, fast, slow in zip(before, after, self._state(), strict=True):
            now = slow.detach()
            if now.is_floating_point():
                moved = float((now - old).double().norm()) + ROUNDING * float(now.double().norm())
                worst = max(worst, float((fast - now).double().norm()) / max(moved, 1e-12))
        if worst > MOST_DIFFERENCE:
            return (
                f"its update differs from the ordinary one's by {100 * worst:.1f} % (losses "
                f"{float(fast_loss):.6g} and {float(loss):.6g})"
            )
        return ""
