"""Fetches the archive of a data set from a mirror, or else its official address, and verifies it.

An interrupted download is resumed from its `.part` file; no archive is used before its known checksums
(the study's sha256, the publisher's md5) are verified.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

import requests

from pipeline.data.sources.mirrors import folder_at
from pipeline.errors import ChecksumError, DataError, StudyError
from pipeline.files import write_json
from pipeline.params import (
    CIFAR10_SHA256,
    Cifar10Data,
    Data,
    DigitsData,
    ImageFolderData,
    ImageNetData,
    PhotosData,
    Sharded,
)
from pipeline.progress import Progress

CHUNK_BYTES = 1 << 20
ATTEMPTS_A_PLACE = 3
TIMEOUT_S = 30.0
DIGITS_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
CIFAR10_NAME = "cifar-10-python.tar.gz"
CIFAR10_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # published beside the address
# published to those who may download the archives; torchvision has them too
IMAGENET_MD5 = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}

BROKEN_OFF = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
S3Fetch = Callable[[str, Path], None]
"""Writes the object at an s3:// address, or the prefix, packed as a tar, to a path."""


PrefixDigest = Callable[[str], str]
"""Returns a digest that identifies the objects under an s3:// prefix."""


@dataclass(frozen=True)
class Wanted:
    """An archive by name, with an address where it may be found too, and the checksums it must have."""

    name: str
    address: str | None
    sha256: str | None
    md5: str | None = None


def shipped_digits() -> Path:
    """Returns the digits' file in scikit-learn without importing it, which would take a second."""
    found = find_spec("sklearn")
    assert found is not None and found.origin is not None  # it is in requirements.lock
    return Path(found.origin).parent / "datasets/data/digits.csv.gz"


def fetch(
    data: Data,
    target: Path,
    mirrors: Sequence[str],
    partial: Path,
    s3: S3Fetch,
    prefix: PrefixDigest,
) -> None:
    """Puts the verified archive of `data` at `target`; for a large set, a JSON file that identifies it.

    `partial` is a folder that outlives the call, for complete and interrupted downloads. Raises
    DataError if no place has the archive, ChecksumError if only ones with other checksums were found.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    match data:
        case ImageNetData() | PhotosData():
            for wanted in archives_of(data):
                keep(wanted, mirrors, partial, s3)
            facts = [{"name": w.name, "sha256": w.sha256, "md5": w.md5} for w in archives_of(data)]
            folder = folder_of(data)
            content = None if folder is None else _digest_of(folder, mirrors, prefix)
            write_json(target, {"archives": facts, "folder": folder, "content": content})
        case DigitsData():
            digits = shipped_digits()
            _check(digits, Wanted("digits.csv.gz", None, DIGITS_SHA256), str(digits))
            _place(digits, target)
        case ImageFolderData() if data.sha256 is None:
            part = partial / "prefix.part"  # packed objects; their content is digested later
            part.parent.mkdir(parents=True, exist_ok=True)
            s3(data.archive, part)
            part.replace(target)
        case Cifar10Data() | ImageFolderData():
            assert data.sha256 is not None
            _place(find(_wanted(data.archive, data.sha256), mirrors, partial, s3), target)
        case _:
            assert_never(data)


def archives_of(data: Sharded) -> list[Wanted]:
    """Returns the archives of a large set; ImageNet's are training, validation and development kit."""
    if isinstance(data, ImageNetData):
        return [Wanted(name, None, None, md5) for name, md5 in IMAGENET_MD5.items()]
    return [] if data.sha256 is None else [_wanted(data.archive, data.sha256)]


def folder_of(data: Sharded) -> str | None:
    """Returns the folder or s3:// prefix of a large set, or None if it is in archives."""
    return data.archive if isinstance(data, PhotosData) and data.sha256 is None else None


def _digest_of(folder: str, mirrors: Sequence[str], prefix: PrefixDigest) -> str:
    """Returns a digest of the content of a folder, which is read in full, or of an s3:// prefix."""
    if folder.startswith("s3://"):
        return prefix(folder)
    root, sha = folder_in(mirrors, folder), hashlib.sha256()
    paths = sorted(
        Path(place) / name for place, _, names in os.walk(root, followlinks=True) for name in names
    )
    with Progress(f"checksum of {folder}", len(paths), "files") as progress:
        for path in paths:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            sha.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
            progress.advance(1)
    return sha.hexdigest()


def folder_in(mirrors: Sequence[str], name: str) -> Path:
    """Returns the folder of this name in the first mirror that has it; raises DataError if none has."""
    if (folder := folder_at(mirrors, name)) is not None:
        return folder
    raise DataError(
        f"{name}: no folder of STUDY_MIRRORS has it ({' '.join(mirrors) or 'none is set'}): put it in "
        "one, or correct data.archive in params.yaml"
    )


def kept(wanted: Wanted, partial: Path) -> Path:
    """Returns the path at which an archive is kept between stages: a download, or a link to it."""
    return partial / f"{(wanted.sha256 or wanted.md5 or '')[:16]}-{wanted.name}"


def keep(wanted: Wanted, mirrors: Sequence[str], partial: Path, s3: S3Fetch) -> Path:
    """Makes sure that an archive is kept, and returns its path; one in a user's folder is linked."""
    place = kept(wanted, partial)
    found = find(wanted, mirrors, partial, s3)
    if found != place:
        place.unlink(missing_ok=True)
        place.symlink_to(found.resolve())
    return place


def _wanted(archive: str, sha256: str) -> Wanted:
    official = sha256 == CIFAR10_SHA256
    address = archive if "://" in archive else CIFAR10_ADDRESS if official else None
    return Wanted(archive.rsplit("/", 1)[-1], address, sha256, CIFAR10_MD5 if official else None)


def find(wanted: Wanted, mirrors: Sequence[str], partial: Path, s3: S3Fetch) -> Path:
    """Returns a file with the wanted checksums: a mirror's own, or one downloaded to `partial`."""
    target = kept(wanted, partial)
    places = [str(target)] if target.is_file() else []
    places += [f"{mirror.rstrip('/')}/{wanted.name}" for mirror in mirrors]
    places += [wanted.address] if wanted.address else []
    partial.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    tried: list[str] = []
    wrong = False
    for place in places:
        try:
            if place.startswith(("http://", "https://")):
                if part.exists() and not _resumed(place, part, wanted):
                    part.unlink()  # it was the beginning of another file
                if not part.exists():
                    _download(place, part, wanted.name)
            elif place.startswith("s3://"):
                s3(place, part)
            elif (source := Path(place).expanduser()).is_file():
                _check(source, wanted, place)
                return source
            else:
                raise DataError("no such file")
            _check(part, wanted, place)
        except ChecksumError as error:
            part.unlink(missing_ok=True)
            wrong = True
            tried.append(f"  {error}")
        except (StudyError, requests.RequestException) as error:
            tried.append(f"  {place}: {error}")
        else:
            part.replace(target)
            return target
    where = "\n".join(tried) or "  (no mirror is set)"
    checksum = f"sha256 {wanted.sha256}" if wanted.sha256 else f"md5 {wanted.md5}"
    raise (ChecksumError if wrong else DataError)(
        f"{wanted.name}: no place has it with {checksum}:\n{where}\n"
        "Put the file in a folder and name that folder in STUDY_MIRRORS (folders, http(s):// or "
        "s3:// addresses, separated by spaces), or correct `data` in params.yaml."
    )


def _resumed(address: str, part: Path, wanted: Wanted) -> bool:
    """Resumes the download of `part`; tells whether it then has the wanted checksums."""
    _download(address, part, wanted.name)
    try:
        _check(part, wanted, address)
    except ChecksumError:
        return False
    return True


def _download(address: str, part: Path, name: str) -> None:
    """Downloads to `part`, continuing where it ends; attempts and time without data are bounded."""
    for attempt in range(ATTEMPTS_A_PLACE):
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # the archive's bytes, not decoded in transit
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
                if answer.status_code == 416:  # nothing is left to download: the checksum decides
                    return
                answer.raise_for_status()
                if answer.status_code != 206:
                    have = 0
                total = have + int(answer.headers.get("Content-Length", 0))
                with (
                    part.open("ab" if have else "wb") as file,
                    Progress(f"download {name}", total, "B", have) as progress,
                ):
                    for chunk in answer.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                        progress.advance(len(chunk))
                if total and part.stat().st_size < total:
                    raise requests.ConnectionError("the connection was closed early")
                return
        except BROKEN_OFF as error:
            if attempt == ATTEMPTS_A_PLACE - 1:
                raise DataError(f"{type(error).__name__} after {ATTEMPTS_A_PLACE} tries") from error
            time.sleep(2**attempt)


def _check(path: Path, wanted: Wanted, place: str) -> None:
    for kind, expected in (("sha256", wanted.sha256), ("md5", wanted.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            raise ChecksumError(
                f"{place}: {kind} {found}, expected {expected} ({path.stat().st_size:,} bytes): "
                "the file is damaged or a different one"
            )


def _place(source: Path, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
