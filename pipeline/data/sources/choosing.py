"""Which files of a source are images of which class: `<split>/<class>/<image>`, below one root.

The rules are the same for data sets in memory and in shards. Files that are left out are counted, with
the reason and an example.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.errors import DataError

EXTENSIONS = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif",
}  # fmt: skip
# the first bytes of files in these formats
BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P1", b"P2", b"P3", b"P4",
    b"P5", b"P6", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip
HEAD_BYTES = 16

HIDDEN = "hidden files and folders"
ELSEWHERE = "images outside <split>/<class>/"
NO_IMAGE = "files that are not images"
REPLACED = "members replaced by a later one of the same name"


@dataclass
class Left:
    """Files that were left out for the same reason."""

    files: int = 0
    example: str = ""


@dataclass
class Choice:
    """Chooses what is taken from a source, file by file; `where` is the source's name in messages."""

    where: str
    splits: tuple[str, str]
    left: dict[str, Left] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def take(self, name: str, head: Callable[[], bytes]) -> tuple[str, str, str] | None:
        """Returns (split, class, file name) of a file that is taken, or None.

        `head` returns its first bytes; it is called only if the suffix is not an image's. Raises
        DataError for a class name that a report could not print.
        """
        pure = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in pure.parts):
            self._leave(HIDDEN, name)
            return None
        if pure.suffix.lower() not in EXTENSIONS and not looks_like_an_image(head()):
            self._leave(NO_IMAGE, name)
            return None
        if len(pure.parts) < 3 or pure.parts[-3] not in self.splits:
            self._leave(ELSEWHERE, name)
            return None
        split, label = pure.parts[-3:-1]
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") for letter in label):
            raise DataError(
                f"{self.where}: the class folder {label!r} (of {name!r}) has characters that cannot be "
                "printed: rename it"
            )
        root = "/".join(pure.parts[:-3])
        self.roots.setdefault(root, name)
        if name in self._seen:
            self._leave(REPLACED, name)
        self._seen.add(name)
        return split, label, pure.name

    def _leave(self, why: str, name: str) -> None:
        left = self.left.setdefault(why, Left())
        left.files += 1
        left.example = left.example or name

    def require_one_root(self) -> None:
        """Raises DataError if the source holds the data set more than once, under different folders."""
        if len(self.roots) > 1:
            shown = "; ".join(f"{root or '(the top)'}/ (such as {name})" for root, name in
                              sorted(self.roots.items())[:4])  # fmt: skip
            raise DataError(
                f"{self.where}: {self.splits[0]}/ and {self.splits[1]}/ lie below {len(self.roots)} "
                f"folders: {shown}; wanted one, since images would count twice and validation images "
                "could be training images too: pack it again with only one of them"
            )


def looks_like_an_image(head: bytes) -> bool:
    """Tells whether a file's first bytes are those of an image format."""
    if head.startswith(BEGINNINGS):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] == b"ftypavif"


def require_utf8(where: str, name: str, place: int) -> str:
    """Returns a member's name; raises DataError if its bytes are not UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "surrogateescape")
        raise DataError(
            f"{where}: member {place}: its name {shown!r} is not UTF-8: rename it, and pack the archive "
            "again"
        ) from None
    return name
