"""What a network is shown of photographs: boxes of them, decoded by processes of their own.

A request says which boxes of which images make one tensor; requests are answered in order, a few ahead
of who asks. `single`, `ten_crops` and `whole` are the tests' views of section 3.4.
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
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from pipeline.data.arrays import Split
from pipeline.data.photos import cut, size_of
from pipeline.data.shards import Photos, ShardFiles
from pipeline.errors import StudyError

PR_SET_PDEATHSIG = 1  # prctl(2)
AHEAD = 3  # answers that each process has ready
FETCHES_AT_ONCE = 4
RESIZED = 256 / 224  # section 3.4: crops of 224 from images whose shorter side is 256
BATCH_PIXELS = 64 * 224 * 224  # of a batch of whole images
CROPS_BATCH = 100
IN_MEMORY_BATCH = 500


@dataclass(frozen=True)
class Request:
    """Boxes of images, to be resized to one size (height, width).

    `places` int64 (n,) in the split; `boxes` float64 (n, 4): top, left, height, width in pixels;
    `mirror` bool (n,); `shift` float32 (n, 3): how far each one's colours are to be moved.
    """

    places: Tensor
    boxes: Tensor
    mirror: Tensor
    shift: Tensor
    size: tuple[int, int]

    @staticmethod
    def plain(places: Tensor, boxes: Tensor, size: tuple[int, int]) -> "Request":
        """Returns a request for boxes as they are."""
        count = len(places)
        straight = torch.zeros(count, dtype=torch.bool)
        return Request(places, boxes, straight, torch.zeros(count, 3), size)


Answer = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (n, height, width, 3), and their request's places and shift.

What the decoding processes know already, the one that trains does not compute again.
"""


class _Answers(Dataset[Answer | StudyError]):
    """The answer to each request, made in a loader's process; or what is wrong, by its own text."""

    def __init__(self, photos: Photos, request: Callable[[int], Request]) -> None:
        self._photos, self._request = photos, request

    def __getitem__(self, number: int) -> Answer | StudyError:
        """Returns an answer."""
        try:
            return self._made(number)
        except StudyError as error:  # raised here, it would come with this process's traceback
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
    """Shards that are used at the same time: windows, counted through all that is asked for."""

    def window_of(self, number: int) -> int:
        """Returns the window of the last image of a request."""

    def shards_in(self, window: int) -> Sequence[int]:
        """Returns the shards of a window; none after the last."""


def answers(
    photos: Photos,
    request: Callable[[int], Request],
    numbers: range,
    windows: Windows,
    device: torch.device,
) -> Iterator[Answer]:
    """Yields the answer for each number, in order, its images and shift on `device`.

    As many processes decode as `files` says; the next window's shards are fetched while
    this one's are used.
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
                    for shard in windows.shards_in(window):  # what goes wrong shows when it is read
                        pool.submit(_files(photos).path, photos.shards[shard])
            if isinstance(answer, StudyError):
                raise answer
            images, places, shift = answer
            yield images.to(device, non_blocking=True), places, shift.to(device, non_blocking=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _die_with_parent(_: int) -> None:
    """Leaves no loader behind a killed training: it would hold what the training had locked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _files(photos: Photos) -> ShardFiles:
    assert photos.files is not None  # stages and workers say where shards come from
    return photos.files


# --- the tests' views ---------------------------------------------------------------------------


def resized_px(crop_px: int) -> int:
    """Returns the shorter side from which crops are taken: 256 for 224."""
    return round(crop_px * RESIZED)


def single(split: Split, crop_px: int, device: torch.device) -> Iterator[Tensor]:
    """Yields the middle crops of a split's images in order, uint8 (n, crop, crop, 3)."""
    photos = photos_of(split)
    side = photos.sizes.min(dim=1).values.double()[:, None] * crop_px / resized_px(crop_px)
    boxes = torch.cat([(photos.sizes - side) / 2, side.expand(-1, 2)], dim=1)
    size = (crop_px, crop_px)
    pieces = [
        _Piece(window, size, places)
        for window, shards in enumerate(photos.windows())
        for places in torch.split(photos.places_in(shards), CROPS_BATCH)
    ]
    yield from _sequential(photos, pieces, boxes, device)


def whole(
    split: Split, shorter_side_px: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (places int64 (n,), whole images uint8 (n, H, W, 3)) of a split, of one size each.

    The shorter side is `shorter_side_px`; images that become equally large come together.
    """
    photos = photos_of(split)
    pieces = []
    for window, shards in enumerate(photos.windows()):
        groups: dict[tuple[int, int], list[int]] = {}
        for place in photos.places_in(shards).tolist():
            height, width = photos.sizes[place].tolist()
            groups.setdefault(size_of((width, height), shorter_side_px)[::-1], []).append(place)
        for size, places in groups.items():
            most = max(1, BATCH_PIXELS // (size[0] * size[1]))
            pieces += [
                _Piece(window, size, piece) for piece in torch.split(torch.tensor(places), most)
            ]
    boxes = torch.cat([torch.zeros_like(photos.sizes), photos.sizes], dim=1).double()
    images = _sequential(photos, pieces, boxes, device)
    yield from zip((piece.places for piece in pieces), images, strict=True)


@dataclass(frozen=True)
class _Piece:
    """Images that are resized to one size together."""

    window: int
    size: tuple[int, int]
    places: Tensor


@dataclass(frozen=True)
class _InOrder:
    photos: Photos
    pieces: Sequence[_Piece]

    def window_of(self, number: int) -> int:
        return self.pieces[number].window

    def shards_in(self, window: int) -> Sequence[int]:
        windows = self.photos.windows()
        return windows[window] if window < len(windows) else []


def _sequential(
    photos: Photos, pieces: Sequence[_Piece], boxes: Tensor, device: torch.device
) -> Iterator[Tensor]:
    def request(number: int) -> Request:
        places = pieces[number].places
        return Request.plain(places, boxes[places], pieces[number].size)

    numbers, windows = range(len(pieces)), _InOrder(photos, pieces)
    for images, _, _ in answers(photos, request, numbers, windows, device):
        yield images


def inputs(
    split: Split, mean: Tensor, crop_px: int | None, device: torch.device
) -> Iterator[Tensor]:
    """Yields what a network sees in the single view, float32 (n, C, H, W), in the split's order.

    An image in memory is used as it is (section 4.2: the single view of the original 32x32 image),
    a photograph's middle crop of `crop_px` stands for it.
    """
    if isinstance(split.images, Photos):
        assert crop_px is not None  # pipeline.params refuses it
        for crops in single(split, crop_px, device):
            yield less_mean(crops, mean)
        return
    if not len(split):  # a worker's share of very few
        return
    mean = mean.to(device)
    for images in torch.split(split.images.to(device), IN_MEMORY_BATCH):
        yield (images - mean).permute(0, 3, 1, 2)


def ten_crops(images: Tensor, crop_px: int) -> list[Tensor]:
    """Returns the four corners and the middle of whole images, and their mirror images.

    `images` (n, H, W, C); each (n, crop, crop, C) (Krizhevsky et al. 2012, section 4.1).
    """
    down, right = images.shape[1] - crop_px, images.shape[2] - crop_px
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [images[:, top : top + crop_px, left : left + crop_px] for top, left in places]
    return crops + [crop.flip(2) for crop in crops]


def less_mean(images: Tensor, mean: Tensor) -> Tensor:
    """Returns float32 (n, C, H, W) of uint8 (n, H, W, C): the mean image, made as large, subtracted."""
    resized = interpolate(
        mean.permute(2, 0, 1)[None], images.shape[1:3], mode="bilinear", antialias=True
    )
    return images.permute(0, 3, 1, 2) - resized.to(images.device)


def photos_of(split: Split) -> Photos:
    """Returns the photographs of a large set's split."""
    assert isinstance(split.images, Photos)
    return split.images
