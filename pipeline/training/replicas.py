"""The workers of one training: replicas with the same weights and history; if these differ, all stop.

Each worker sees its own share of a batch and so has its own batch-norm statistics. The first worker's
are the training's; all others receive them before each validation.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from pipeline.errors import ReplicasError
from pipeline.training.history import history_digest
from pipeline.training.state import TrainingState

MULTIPLIERS = 65_521  # an element's multiplier depends on its place: a swap changes the sum


@dataclass(frozen=True)
class Replicas:
    """This worker among all of a training; if there are several, torch.distributed is set up already."""

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
        """Gives every worker the first worker's batch-norm statistics, which are those that are stored.

        This changes no weight: DistributedDataParallel gives them to all workers at each forward pass in
        training anyway.
        """
        if self.workers > 1:
            for statistic in model.buffers():
                distributed.broadcast(statistic, src=0)

    def require_equal(self, state: TrainingState) -> None:
        """Raises ReplicasError on every worker if weights, momentum or history differ on any of them."""
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

    It is computed on the tensors' device: two sums over each tensor's bits, one of them weighted by
    place.
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
    """Returns the device of the workers' messages: the GPU for NCCL, which supports no other."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
