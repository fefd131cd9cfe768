"""Reads archives member by member without unpacking them to disk.

Nothing is ever written under a name taken from an archive; even so, members that could only be meant to
escape from it (absolute names, "..", links, devices) are refused.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.data.sources.choosing import require_utf8
from pipeline.errors import DataError

ZIP_UTF8 = 0x800  # the flag of a member whose name is UTF-8
MAX_MEMBER_BYTES = 512 << 20  # CIFAR-10's largest member is 31 MB; a photograph is far smaller


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of every regular file in a tar, tar.gz, tar.bz2, tar.xz or zip.

    Raises DataError for a truncated or unknown archive and for a member with an unsafe name.
    """
    try:
        with path.open("rb") as file:  # judged by the first bytes: a tar may end with a zip
            is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
        if is_zip:
            yield from _zip_members(path)
        else:
            yield from _tar_members(path)
    except (
        tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error, OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: not a complete tar, tar.gz, tar.bz2, tar.xz or zip archive "
            f"({type(error).__name__}: {error}): fetch it again, `dvc repro -f fetch`"
        ) from error


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:*") as tar:
        for place, member in enumerate(tar, start=1):
            require_utf8(str(path), member.name, place)
            refuse_unsafe(path, member.name)
            refuse_link(path, member)
            if member.isdir():
                continue
            _refuse_huge(path, member.name, member.size)
            file = tar.extractfile(member)
            assert file is not None  # a regular file always has content
            yield member.name, file.read()


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for place, member in enumerate(archive.infolist(), start=1):
            name = _zip_name(path, member, place)
            refuse_unsafe(path, name)
            if member.is_dir():
                continue
            _refuse_huge(path, name, member.file_size)
            yield name, archive.read(member)


def _zip_name(path: Path, member: zipfile.ZipInfo, place: int) -> str:
    """Returns a member's name; some programs write UTF-8 without setting the flag."""
    if member.flag_bits & ZIP_UTF8 or member.filename.isascii():
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        raise DataError(
            f"{path}: member {place}: its name {member.filename!r} is not UTF-8: rename it, and pack the "
            "archive again"
        ) from None


def refuse_unsafe(path: Path, name: str) -> None:
    """Raises DataError for a member whose name points outside the archive."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name:
        raise DataError(
            f"{path}: member {name!r} points outside the archive, wanted relative names: "
            "do not use this archive"
        )


def refuse_link(path: Path, member: tarfile.TarInfo) -> None:
    """Raises DataError for a member of a tar that is neither a file nor a folder."""
    if not (member.isfile() or member.isdir()):
        raise DataError(
            f"{path}: member {member.name!r} is a link or a device, wanted regular files only: do not "
            "use this archive, or pack it again without links"
        )


def _refuse_huge(path: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise DataError(
            f"{path}: member {name!r} has {size:,} bytes, but at most {MAX_MEMBER_BYTES:,} are read: "
            "do not use this archive"
        )
