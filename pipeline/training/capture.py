"""A training step as a CUDA graph: one launch instead of thousands for a small network.

Unverified: no GPU was at hand when this was written (benchmarks/RESULTS.md says what was measured).
"""

import torch
from torch import Tensor

from pipeline.training.loop import Step

EAGER_UPDATES = 3  # the optimizer's buffers and cuDNN's choices are made before the capture


class CapturedStep:
    """Does what `step` does; its first updates run as they are, the others from a graph.

    Inputs are copied to fixed places, so that batches may lie anywhere. The results are valid until
    the next update.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._eager_left = EAGER_UPDATES
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss and how many were wrong, as `Step`."""
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
