"""Activation checkpointing: a block keeps only its input and recomputes the rest when it is needed.

A second forward pass saves memory: a network of 600 blocks holds 600 activations instead of thousands
(Chen et al. 2016, arXiv 1604.06174). The resulting bits are the same as without it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Sequential):
    """A sequence of checkpointed blocks, whose weights have the same names as in nn.Sequential."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns what nn.Sequential returns."""
        for block in self:
            x = checkpoint(
                block,
                x,
                use_reentrant=False,
                preserve_rng_state=False,  # the networks draw no random numbers
                context_fn=partial(_contexts, block),
            )
        return x


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Lets batch norms use a batch's statistics without counting the batch a second time.

    `track_running_stats` is not used for this: autograd must save the same tensors as in the first pass.
    """
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches
