"""Places that have the archives of data sets, as a user names them."""

import os
import shlex
from pathlib import Path

from pipeline.errors import ParamsError

MIRRORS = "STUDY_MIRRORS"
DOWNLOADS = Path(
    ".downloads"
)  # archives of large sets, kept, and parts of downloads that broke off


def mirrors() -> list[str]:
    """Returns the places of STUDY_MIRRORS: separated by spaces, in quotation marks one that has a space."""
    text = os.environ.get(MIRRORS, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParamsError(
            f"{MIRRORS}: found {text!r} ({error}), wanted places separated by spaces, one that has a "
            "space itself in quotation marks"
        ) from error
