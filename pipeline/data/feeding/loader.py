"""What a network sees of photographs: boxes of them, decoded by separate processes.

A request says which boxes of which images make one tensor; requests are answered in order, a few ahead
of the consumer.
"""

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.dataset import Split
from pipeline.data.feeding.decoding import cut
from pipeline.data.feeding.shards import Photos, ShardFiles
from pipeline.errors import StudyError

PR_SET_PDEATHSIG = 1  # prctl(2)
AHEAD = 3  # answers that each process prepares in advance
FETCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Request:
    """Boxes of images, to be resized to one size (height, width).

    `places` int64 (n,) in the split; `boxes` float64 (n, 4): top, left, height, width in pixels;
    `mirror` bool (n,); `shift` float32 (n, 3): each one's color shift.
    """

    places: Tensor
    boxes: Tensor
    mirror: Tensor
    shift: Tensor
    size: tuple[int, int]

    @staticmethod
    def plain(places: Tensor, boxes: Tensor, size: tuple[int, int]) -> "Request":
        """Returns a request for boxes that are neither mirrored nor shifted in color."""
        count = len(places)
        straight = torch.zeros(count, dtype=torch.bool)
        return Request(places, boxes, straight, torch.zeros(count, 3), size)


Answer = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (n, height, width, 3), and their request's places and shift.

The decoding processes return the latter two so that the training process need not compute them again.
"""


class _Answers(Dataset[Answer | StudyError]):
    """The answer to each request, computed in a loader process, or the error that prevented it."""

    def __init__(self, photos: Photos, request: Callable[[int], Request]) -> None:
        self._photos, self._request = photos, request

    def __getitem__(self, number: int) -> Answer | StudyError:
        """Returns an answer."""
        try:
            return self._made(number)
        except StudyError as error:  # if raised here, it would carry this process's traceback
            return error

    def _made(self, number: int) -> Answer:
        request = self._request(number)
        out = np.empty((len(request.places), *request.size, 3), dtype=np.uint8)
        for line, (place, box, mirror) in enumerate(
            zip(
                request.places.tolist(),
                request.boxes.tolist(),
                request.mirror.tolist(),
                strict=True,
            )
        ):
            out[line] = cut(self._photos.content(place), tuple(box), request.size, mirror)
        return torch.from_numpy(out), request.places, request.shift


class Windows(Protocol):
    """Windows: groups of shards that are used at the same time, numbered through all requests."""

    def window_of(self, number: int) -> int:
        """Returns the window that contains the last image of a request."""

    def shards_in(self, window: int) -> Sequence[int]:
        """Returns the shards of a window; none beyond the last window."""


def answers(
    photos: Photos,
    request: Callable[[int], Request],
    numbers: range,
    windows: Windows,
    device: torch.device,
) -> Iterator[Answer]:
    """Yields the answer for each number, in order, its images and shift on `device`.

    `photos.files` says how many processes decode; the next window's shards are fetched while the current
    ones are in use.
    """
    if not numbers:
        return
    loader = DataLoader(
        _Answers(photos, request),
        batch_size=None,
        sampler=numbers,
        num_workers=_files(photos).decoders,
        prefetch_factor=AHEAD,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork",
        worker_init_fn=_die_with_parent,
    )
    pool, fetched = ThreadPoolExecutor(FETCHES_AT_ONCE), -1
    try:
        for number, answer in zip(numbers, loader, strict=True):
            for window in range(windows.window_of(number), windows.window_of(number) + 2):
                if window > fetched:
                    fetched = window
                    for shard in windows.shards_in(window):  # a failure shows when it is read
                        pool.submit(_files(photos).path, photos.shards[shard])
            if isinstance(answer, StudyError):
                raise answer
            images, places, shift = answer
            yield images.to(device, non_blocking=True), places, shift.to(device, non_blocking=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _die_with_parent(_: int) -> None:
    """Makes a loader die with a killed training; otherwise it would keep the training's locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _files(photos: Photos) -> ShardFiles:
    assert photos.files is not None  # set by stages and workers
    return photos.files


def photos_of(split: Split) -> Photos:
    """Returns the photographs of a large set's split."""
    assert isinstance(split.images, Photos)
    return split.images
