"""`make project`: draws a new project id, so that a copy of this project becomes a study of its own.

Everything on S3 stays under the old id; nothing is deleted.
"""

import re
import secrets
from pathlib import Path

from pipeline.files import write
from pipeline.storage.layout import PROJECT


def drawn(folder: str) -> str:
    """Returns a new id that begins with a folder's name."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:40] or "study"
    return f"{name}-{secrets.token_hex(4)}"


if __name__ == "__main__":
    found = drawn(Path.cwd().name)
    write(PROJECT, f"{found}\n")
    print(f"{found}: commit pipeline/{PROJECT.name}")
