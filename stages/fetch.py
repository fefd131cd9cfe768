"""Stage `fetch`: the archive of the data set, checked -> data/archive."""

from pathlib import Path

from infra.local import s3
from pipeline import command, params, paths
from pipeline.data.sources import download
from pipeline.data.sources.mirrors import DOWNLOADS, mirrors
from pipeline.params import canonical_sha256


def fetch_s3(address: str, path: Path) -> None:
    """Writes an object or a packed prefix to `path`."""
    from pipeline.storage.objects import fetch_address

    s3.connect()
    fetch_address(address, path)


def digest_of_prefix(address: str) -> str:
    """Returns the sha256 of names, sizes and ETags of the objects under an s3:// prefix."""
    from pipeline.storage.objects import in_prefix

    s3.connect()
    return canonical_sha256(in_prefix(address)[2])


def main() -> None:
    """Fetches the archive."""
    study = params.load()
    download.fetch(
        study.data,
        paths.ARCHIVE,
        mirrors=mirrors(),
        partial=DOWNLOADS,
        s3=fetch_s3,
        prefix=digest_of_prefix,
    )


if __name__ == "__main__":
    command.stage(main, lambda: params.load().data)
