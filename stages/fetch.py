"""Stage `fetch`: the archive of the data set, checked -> data/archive."""

import os
from pathlib import Path

from infra.local import s3
from pipeline import params
from pipeline.data import sources
from stages import stage


def fetch_s3(address: str, path: Path) -> None:
    """Writes an object or a packed prefix to `path`."""
    from pipeline.storage.s3 import fetch_address

    s3.connect()
    fetch_address(address, path)


def main() -> None:
    """Fetches the archive."""
    study = params.load()
    sources.fetch(
        study.data,
        Path("data/archive"),
        mirrors=os.environ.get("STUDY_MIRRORS", "").split(),
        partial=Path(".downloads"),
        s3=fetch_s3,
    )


if __name__ == "__main__":
    stage.main(main)
