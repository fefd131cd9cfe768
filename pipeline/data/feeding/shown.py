"""What a network sees outside training: the single view, ten crops and whole images of section 3.4."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.data.dataset import Split
from pipeline.data.feeding.decoding import size_of
from pipeline.data.feeding.loader import Request, answers, photos_of
from pipeline.data.feeding.shards import Photos

RESIZED = 256 / 224  # section 3.4: crops of 224 from images whose shorter side is 256
BATCH_PIXELS = 64 * 224 * 224  # in a batch of whole images
CROPS_BATCH = 100
IN_MEMORY_BATCH = 500


def resized_px(crop_px: int) -> int:
    """Returns the shorter side of the images from which crops are taken: 256 for crops of 224."""
    return round(crop_px * RESIZED)


def single(split: Split, crop_px: int, device: torch.device) -> Iterator[Tensor]:
    """Yields the center crops of a split's images in order, uint8 (n, crop, crop, 3)."""
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
    """Yields (indices int64 (n,), whole images uint8 (n, H, W, 3)) of a split, in batches of one size.

    The shorter side is `shorter_side_px`; images that have the same size after resizing are batched.
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
    """Images that are resized to the same size, in one batch."""

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

    An image in memory is used as it is (section 4.2: the single view of the original 32x32 image), of a
    photograph the center crop of `crop_px` pixels.
    """
    if isinstance(split.images, Photos):
        assert crop_px is not None  # ensured by pipeline.params
        for crops in single(split, crop_px, device):
            yield less_mean(crops, mean)
        return
    if not len(split):  # a worker's share of very few images
        return
    mean = mean.to(device)
    for images in torch.split(split.images.to(device), IN_MEMORY_BATCH):
        yield (images - mean).permute(0, 3, 1, 2)


def ten_crops(images: Tensor, crop_px: int) -> list[Tensor]:
    """Returns the four corner crops and the center crop of whole images, and their mirror images.

    `images` (n, H, W, C); each crop (n, crop, crop, C) (Krizhevsky et al. 2012, section 4.1).
    """
    down, right = images.shape[1] - crop_px, images.shape[2] - crop_px
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [images[:, top : top + crop_px, left : left + crop_px] for top, left in places]
    return crops + [crop.flip(2) for crop in crops]


def less_mean(images: Tensor, mean: Tensor) -> Tensor:
    """Returns images uint8 (n, H, W, C) less the mean, resized to theirs, as float32 (n, C, H, W)."""
    resized = interpolate(
        mean.permute(2, 0, 1)[None], images.shape[1:3], mode="bilinear", antialias=True
    )
    return images.permute(0, 3, 1, 2) - resized.to(images.device)
