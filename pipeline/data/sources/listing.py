"""Lists the images of a large source and where their bytes are, without reading them.

Images are not extracted: each is a byte range in a tar (ImageNet's training archive is a tar of tars), a
file in a folder, or an object under an s3:// prefix.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.data.sources.archives import members, refuse_link, refuse_unsafe
from pipeline.data.sources.choosing import HEAD_BYTES, Choice, Left, require_utf8
from pipeline.errors import DataError
from pipeline.params import PhotosData

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True, order=True)
class Entry:
    """An image: its split, the names of its class and of its file, and where its bytes are.

    `container` is a file, or the s3:// address of an object.
    """

    split: str
    label: str
    name: str
    container: str
    offset: int
    length: int

    def read(self) -> bytes:
        """Returns the image's bytes from a file."""
        with Path(self.container).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class Listing:
    """The sorted entries of the training and the test part, their classes, and what was left out."""

    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    left: dict[str, Left] = field(default_factory=dict)


def of_folders(found: Iterable[tuple[str, str, int, int]], data: PhotosData, where: str) -> Listing:
    """Returns the listing of files (name, container, offset, length) named `<split>/<class>/<image>`.

    Raises DataError for fewer than two classes, and for a class that one split lacks.
    """
    choice = Choice(where, (data.train_split, data.test_split))
    entries: dict[str, Entry] = {}  # the last member of each name counts
    for name, container, offset, length in found:
        if taken := choice.take(name, partial(_head, container, offset)):
            split, label, file = taken
            entries[name] = Entry(split, label, file, container, offset, length)
    choice.require_one_root()
    train, test = (
        [entry for entry in entries.values() if entry.split == split] for split in choice.splits
    )
    return _listing(train, test, where, choice.left)


def _head(container: str, offset: int) -> bytes:
    """Returns a file's first bytes; none for an object, whose suffix alone decides."""
    if "://" in container:
        return b""
    with Path(container).open("rb") as file:
        file.seek(offset)
        return file.read(HEAD_BYTES)


def _listing(
    train: list[Entry], test: list[Entry], where: str, left: dict[str, Left] | None = None
) -> Listing:
    classes = tuple(sorted({entry.label for entry in (*train, *test)}))
    if len(classes) < 2:
        raise DataError(
            f"{where}: found {len(classes)} class(es) {list(classes)}, wanted two or more folders "
            "<split>/<class>/: check data.archive, data.train_split and data.test_split in params.yaml"
        )
    for part, entries in (("training", train), ("test", test)):
        if lacking := sorted(set(classes) - {entry.label for entry in entries}):
            raise DataError(
                f"{where}: the {part} split has no image of {', '.join(lacking[:5])}, wanted every "
                "class in each split: add images or remove the class"
            )
    return Listing(classes, tuple(sorted(train)), tuple(sorted(test)), left or {})


def in_folder(root: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yields (name, container, offset, length) of the files under a folder."""
    count = 0
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            count += 1
            path = Path(folder) / name
            inner = require_utf8(str(root), path.relative_to(root).as_posix(), count)
            yield inner, str(path), 0, path.stat().st_size


def in_tar(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yields (name, container, offset, length) of a plain tar's files.

    Raises DataError if the tar is incomplete or has an unsafe member.
    """
    for name, offset, length in _in_tar(path):
        yield name, str(path), offset, length


def _in_tar(
    path: Path, part: "_Part | None" = None, start: int = 0
) -> Iterator[tuple[str, int, int]]:
    """Yields name, offset in `path` and length of the files of a tar, or of the tar `part` within it."""
    try:
        with tarfile.open(path, "r:", fileobj=part) as tar:
            for place, member in enumerate(tar, start=1):
                require_utf8(str(path), member.name, place)
                refuse_unsafe(path, member.name)
                refuse_link(path, member)
                if member.isfile():
                    yield member.name, start + member.offset_data, member.size
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: not a complete tar archive ({error}): fetch it again, `dvc repro -f fetch`"
        ) from error


def plain_tar(path: Path) -> Path:
    """Returns an uncompressed tar, which allows random access: the archive, or a copy beside it."""
    if tarfile.is_tarfile(path):
        with path.open("rb") as file:
            file.seek(257)
            if file.read(5) == b"ustar":
                return path
    plain = path.with_name(path.name + ".plain.tar")
    if not plain.exists():
        part = plain.with_name(plain.name + ".part")
        with tarfile.open(part, "w") as tar:
            for name, content in members(path):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        part.replace(plain)
    return plain


def of_imagenet(train: Path, validation: Path, devkit: Path) -> Listing:
    """Returns the listing of ILSVRC2012's archives; classes are WordNet ids, sorted."""
    trained = []
    with train.open("rb") as file:
        for name, offset, length in _in_tar(train):
            file.seek(offset)
            inner = _Part(file, offset, length)
            for image, place, size in _in_tar(train, inner, offset):
                label = PurePosixPath(name).stem
                trained.append(
                    Entry("train", label, PurePosixPath(image).name, str(train), place, size)
                )
    labels = _validation_labels(devkit)
    tested = [
        Entry("val", labels[PurePosixPath(name).name], PurePosixPath(name).name, container, offset, length)
        for name, container, offset, length in in_tar(validation)
    ]  # fmt: skip
    return _listing(trained, tested, f"{train.name}, {validation.name}")


class _Part(io.RawIOBase):
    """A part of a file that can be read like a file."""

    def __init__(self, file: io.BufferedReader, start: int, length: int) -> None:
        self._file, self._start, self._length, self._place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._length - self._place))
        self._file.seek(self._start + self._place)
        content = self._file.read(count)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def _validation_labels(devkit: Path) -> Mapping[str, str]:
    """Returns the WordNet id of each validation image, from the development kit."""
    from scipy.io import loadmat  # a quarter of a second that no other data set needs

    found = {PurePosixPath(name).name: content for name, content in members(devkit)}
    try:
        synsets = loadmat(io.BytesIO(found["meta.mat"]), squeeze_me=True)["synsets"]
        ids = {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in np.atleast_1d(synsets)
        }
        numbers = [int(line) for line in found[GROUND_TRUTH].split()]
        return {
            f"ILSVRC2012_val_{place:08d}.JPEG": ids[number]
            for place, number in enumerate(numbers, start=1)
        }
    except Exception as error:
        # on damaged files scipy raises nearly anything
        raise DataError(
            f"{devkit}: wanted meta.mat and {GROUND_TRUTH} of ILSVRC2012's development kit "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from error


Read = Callable[[Entry], bytes]
"""Returns an image's bytes, from a file or from S3."""
