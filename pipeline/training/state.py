"""The state of a training: weights, momentum, position and history; saved without pickle.

A batch is a function of (seed, update) and the networks draw no random numbers, so there is no
random state to keep: weights, momentum and the number of updates determine all that follows.
"""

from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pipeline.checkpoint import Record
from pipeline.errors import CheckpointError
from pipeline.training.sgd import Sgd


@dataclass
class TrainingState:
    """A training between two updates; `update` is how many are done."""

    model: nn.Module
    optimizer: Sgd
    update: int = 0
    history: list[Record] = field(default_factory=list)

    def changed_by_updates(self) -> list[Tensor]:
        """Returns weights, batch-norm statistics and momentum: what an update changes."""
        return [*self.model.parameters(), *self.model.buffers(), *self.optimizer.momenta]

    def tensors(self) -> bytes:
        """Returns weights, batch-norm statistics and momentum in the safetensors format."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        named = self.model.named_parameters() if self.optimizer.momenta else ()
        for (name, _), momentum in zip(named, self.optimizer.momenta, strict=True):
            tensors[f"momentum.{name}"] = momentum
        content: bytes = save_tensors({name: value.contiguous() for name, value in tensors.items()})
        return content

    def restore(self, tensors: bytes, update: int, history: list[Record]) -> None:
        """Restores a saved state; raises CheckpointError if it is another network's."""
        try:
            loaded = load_tensors(tensors)
            weights = _strip(loaded, "model.")
            self.model.load_state_dict(weights)
            momentum = _strip(loaded, "momentum.")
            named = self.model.named_parameters() if momentum else ()
            self.optimizer.momenta = [  # keeping channels-last
                torch.empty_like(parameter).copy_(momentum[name]) for name, parameter in named
            ]
            self.history = list(history)
        except (SafetensorError, RuntimeError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint at update {update} does not fit this network ({error}): "
                "`make again RUN=<row>` trains afresh"
            ) from error
        self.update = update


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }
