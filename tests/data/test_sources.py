"""Fetching: mirrors, a real HTTP server that breaks off, checksums before anything is opened."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import params
from pipeline.data.sources import download
from pipeline.data.sources.mirrors import source_of
from pipeline.errors import ChecksumError, DataError
from pipeline.params import Data, DigitsData, ImageFolderData, ImageNetData
from tests.conftest import REPO
from tests.photographs import data as photos

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; the first answer of a path `/broken/` ends in the middle."""

    seen: list[str | None]
    broken = False

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        type(self).seen.append(start)
        if "missing" in self.path:
            self.send_error(404)
            return
        first = int(start.removeprefix("bytes=").rstrip("-")) if start else 0
        body = CONTENT[first:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "broken" in self.path and not type(self).broken:
            type(self).broken = True
            self.wfile.write(body[: len(body) // 2])
            return
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.seen, Server.broken = [], False
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def folder_data(sha256: str = SHA256, archive: str = "a.tar") -> ImageFolderData:
    return ImageFolderData(
        kind="imagefolder", archive=archive, sha256=sha256, train_split="train", test_split="test",
        image_size_px=8, val_images=1, split_seed=0, duplicates_pct=100,
    )  # fmt: skip


def fetch(tmp_path: Path, *mirrors: str, data: Data | None = None) -> Path:
    target = tmp_path / "data" / "archive"
    download.fetch(data or folder_data(), target, mirrors, tmp_path / "partial", no_s3, no_prefix)
    return target


def no_prefix(address: str) -> str:
    raise DataError(f"{address}: no S3 in this test")


def no_s3(address: str, path: Path) -> None:
    raise DataError(f"{address}: no S3 in this test")


def test_the_first_mirror_that_has_it_is_taken(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "a.tar").write_bytes(CONTENT)
    target = fetch(tmp_path, str(tmp_path / "empty"), str(tmp_path / "mirror"))
    assert target.read_bytes() == CONTENT


def test_a_download_that_breaks_off_is_resumed(tmp_path: Path, server: str):
    assert fetch(tmp_path, f"{server}/broken").read_bytes() == CONTENT
    first, second = Server.seen
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= len(CONTENT) // 2


def test_a_partial_file_of_an_earlier_call_is_gone_on_with(tmp_path: Path, server: str):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / f"{SHA256[:16]}-a.tar.part").write_bytes(CONTENT[:1000])
    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert Server.seen == ["bytes=1000-"]


def test_an_official_address_comes_after_the_mirrors(tmp_path: Path, server: str):
    data = folder_data(archive=f"{server}/a.tar")
    assert fetch(tmp_path, f"{server}/missing", data=data).read_bytes() == CONTENT
    assert len(Server.seen) == 2


def test_a_partial_file_of_other_bytes_is_begun_anew(tmp_path: Path, server: str):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / f"{SHA256[:16]}-a.tar.part").write_bytes(b"x" * 1000)
    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert Server.seen == ["bytes=1000-", None]


@pytest.mark.slow
def test_a_mirrors_password_is_in_no_message(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, "http://user:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_a_download_is_kept_and_not_made_twice(tmp_path: Path, server: str):
    fetch(tmp_path, server)
    (tmp_path / "data" / "archive").unlink()
    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert len(Server.seen) == 1


def test_a_wrong_checksum_is_told_and_nothing_is_left(tmp_path: Path, server: str):
    with pytest.raises(ChecksumError, match=f"sha256 {SHA256}, expected {'0' * 64}"):
        fetch(tmp_path, server, data=folder_data("0" * 64))
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "data" / "archive").exists()


def test_a_mirror_with_wrong_bytes_is_passed_over(tmp_path: Path, server: str):
    (tmp_path / "a.tar").write_bytes(b"something else")
    assert fetch(tmp_path, str(tmp_path), server).read_bytes() == CONTENT


def test_no_place_at_all_says_what_to_do(tmp_path: Path, server: str):
    with pytest.raises(DataError, match=r"STUDY_MIRRORS") as caught:
        fetch(tmp_path, str(tmp_path / "nowhere"), f"{server}/missing")
    assert "no such file" in str(caught.value)
    assert "404" in str(caught.value)


@pytest.mark.slow
def test_a_mirror_that_refuses_the_connection_is_bounded_in_time(tmp_path: Path):
    with pytest.raises(DataError, match="after 3 tries"):
        fetch(tmp_path, "http://127.0.0.1:9")


def test_an_earlier_archive_survives_a_failed_fetch(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "archive").write_bytes(b"earlier")
    with pytest.raises(DataError):
        fetch(tmp_path)
    assert (tmp_path / "data" / "archive").read_bytes() == b"earlier"


def test_digits_need_no_network(tmp_path: Path):
    data = DigitsData(
        kind="digits",
        image_size_px=8,
        test_images=1,
        val_images=1,
        split_seed=0,
        duplicates_pct=100,
    )
    download.fetch(data, tmp_path / "archive", (), tmp_path / "partial", no_s3, no_prefix)
    assert (tmp_path / "archive").stat().st_size > 10_000


def test_the_archive_of_a_large_set_stays_where_it_is(tmp_path: Path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "a.tar").write_bytes(CONTENT)
    data = photos(archive="a.tar", sha256=SHA256)
    target = fetch(tmp_path, str(tmp_path / "mirror"), data=data)
    (wanted,) = download.archives_of(data)
    kept = download.kept(wanted, tmp_path / "partial")
    assert kept.is_symlink() and kept.resolve() == (tmp_path / "mirror" / "a.tar").resolve()
    assert SHA256 in target.read_text() and str(tmp_path) not in target.read_text()
    assert download.keep(wanted, (), tmp_path / "partial", no_s3) == kept


def test_a_downloaded_archive_of_a_large_set_is_kept(tmp_path: Path, server: str):
    data = photos(archive="a.tar", sha256=SHA256)
    fetch(tmp_path, server, data=data)
    kept = download.kept(download.archives_of(data)[0], tmp_path / "partial")
    assert not kept.is_symlink() and kept.read_bytes() == CONTENT


def test_a_folder_is_known_by_its_content_wherever_it_lies(tmp_path: Path):
    data, found = photos(archive="pictures/", sha256=None), []
    for place, content in (("one", b"1"), ("two", b"1"), ("three", b"2")):
        (tmp_path / place / "pictures/train/a").mkdir(parents=True)
        (tmp_path / place / "pictures/train/a/x.JPEG").write_bytes(content)
        found.append(fetch(tmp_path, str(tmp_path / place), data=data).read_text())
    assert found[0] == found[1] != found[2]
    with pytest.raises(DataError, match=r"pictures/: no folder of STUDY_MIRRORS has it"):
        fetch(tmp_path, str(tmp_path / "nowhere"), data=data)


def test_imagenets_archives_are_wanted_by_their_published_checksums(tmp_path: Path):
    data = ImageNetData(
        kind="imagenet", **photos().model_dump(include=set(ImageNetData.model_fields) - {"kind"})
    )
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(CONTENT)
    with pytest.raises(ChecksumError, match="md5 1d675b47d978889d74fa0da5fadfb00e"):
        fetch(tmp_path, str(tmp_path), data=data)


def test_what_an_archive_depends_on_is_its_name_and_a_folders_files(tmp_path: Path):
    study = params.load(REPO / "studies/imagenette.yaml")
    folder = tmp_path / "photographs/train/cat"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"1")

    def source(**changes: object) -> dict:
        data = study.data.model_copy(update={"archive": "photographs/", "sha256": None, **changes})
        return source_of(data, [str(tmp_path)], {})

    before = source()
    assert source(shorter_side_px=77, val_images=3, split_seed=9) == before
    assert source(archive="others/") != before
    os.utime(folder / "1.jpg", ns=(0, 0))
    changed = source()
    assert changed != before
    (folder / "2.jpg").write_bytes(b"2")
    assert source() != changed
    nowhere = study.data.model_copy(update={"archive": "photographs/", "sha256": None})
    assert (
        source_of(nowhere, [], changed) == changed
    )  # a shell without the mirror fetches nothing anew
