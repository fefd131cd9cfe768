"""The workers of one training: replicas that have the same weights and history, or go no further.

Each sees its own share of a batch, so its batch-norm statistics are its own; those of the first are
the training's, and every other has them before anything is judged.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from pipeline.errors import ReplicasError
from pipeline.training.history import history_digest
from pipeline.training.state import TrainingState

MULTIPLIERS = 65_521  # of an element by its place: a swap of two elements changes the sum


@dataclass(frozen=True)
class Replicas:
    """This worker among all of a training; torch.distributed has been set up where there are several."""

    rank: int = 0
    workers: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum of a tensor over all workers, the same bits on each."""
        if self.workers == 1:
            return value
        value = value.clone()
        distributed.all_reduce(value)
        return value

    def of_first(self, values: list[float]) -> list[float]:
        """Returns the first worker's numbers on every worker."""
        if self.workers == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=_device())
        distributed.broadcast(shared, src=0)
        return [float(value) for value in shared]

    def share_statistics(self, model: nn.Module) -> None:
        """Gives every worker the first one's batch-norm statistics.

        They are those that it stores: DistributedDataParallel gives them to all at each forward pass in
        training, and so it changes no weight.
        """
        if self.workers > 1:
            for statistic in model.buffers():
                distributed.broadcast(statistic, src=0)

    def require_equal(self, state: TrainingState) -> None:
        """Raises ReplicasError on every worker where weights, momentum or history differ on any."""
        if self.workers == 1:
            return
        mine = torch.tensor(list(digest_of(state)), dtype=torch.int64, device=_device())
        all_of_them = [torch.empty_like(mine) for _ in range(self.workers)]
        distributed.all_gather(all_of_them, mine)
        strangers = [
            rank for rank, other in enumerate(all_of_them) if not torch.equal(other, all_of_them[0])
        ]
        if strangers:
            raise ReplicasError(
                f"after update {state.update:,} the weights or the history of worker "
                f"{', '.join(map(str, strangers))} of {self.workers} differ from worker 0's; nothing of "
                "this interval is stored: `dvc repro` goes on from the last checkpoint; if it happens "
                "again, look for a faulty device or network"
            )


def digest_of(state: TrainingState) -> bytes:
    """Returns a digest of weights, statistics, momentum and history (without its timings).

    It is taken where the tensors are: two sums over each one's bits, of which one weighs places.
    """
    sums = []
    for tensor in state.changed_by_updates():
        bits = tensor.detach().contiguous().view(-1)
        kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.element_size()]
        bits = bits.view(kind).long()
        places = torch.arange(len(bits), device=bits.device) % MULTIPLIERS + 1
        sums += [bits.sum(), (bits * places).sum()]
    found = torch.stack(sums).cpu().numpy().tobytes()
    whole = hashlib.sha256(found + f"{state.update} {history_digest(state.history)}".encode())
    return whole.digest()


def _device() -> torch.device:
    """Returns where the workers' messages lie: on the GPU for NCCL, which knows no other."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
