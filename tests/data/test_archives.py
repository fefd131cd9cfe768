"""Archives are read, never unpacked; what tries to escape is refused."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from pipeline.data.sources.archives import members
from pipeline.errors import DataError


def tar(
    path: Path,
    *entries: tarfile.TarInfo | tuple[str, bytes],
    mode: Literal["w", "w:gz", "w:xz", "w:bz2"] = "w",
) -> Path:
    with tarfile.open(path, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_every_kind_of_tar_is_read(tmp_path: Path, mode: str):
    assert list(members(tar(tmp_path / "a", ("x/y", b"12"), mode=mode))) == [("x/y", b"12")]


def test_a_zip_is_read(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("x/y", b"12")
    assert list(members(tmp_path / "a")) == [("x/y", b"12")]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x"])
def test_a_name_that_points_outside_is_refused(tmp_path: Path, name: str):
    with pytest.raises(DataError, match="points outside the archive"):
        list(members(tar(tmp_path / "a", (name, b"1"))))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="link or a device"):
        list(members(tar(tmp_path / "a", info)))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_truncated_archive_is_refused(tmp_path: Path, mode: str):
    path = tar(tmp_path / "a", ("x", bytes(range(256)) * 500), ("y", b"2" * 100), mode=mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DataError, match="not a complete"):
        list(members(path))


def test_what_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"hello")
    with pytest.raises(DataError, match="not a complete"):
        list(members(tmp_path / "a"))
