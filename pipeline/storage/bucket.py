"""Which S3, which bucket and with which keys: found once, then passed on explicitly.

`STUDY_BUCKET` chooses another S3 than the embedded one, and AWS's own variables then say where it is
and who asks. The embedded one is in a private file that `STUDY_S3` names: set by the process that
started or found it, for itself and its children, so that no key stands in an environment.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.environment import BUCKET
from pipeline.errors import StorageError

EMBEDDED = "STUDY_S3"
DEFAULT_BUCKET, DEFAULT_REGION = "resnet-study", "us-east-1"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # AWS's own order
REGIONS = ("AWS_DEFAULT_REGION", "AWS_REGION")


@dataclass(frozen=True)
class Bucket:
    """A bucket; `endpoint` None is AWS, keys None are found by boto3 where it always looks."""

    bucket: str
    endpoint: str | None
    region: str
    access_key: str | None = None
    secret: str | None = field(default=None, repr=False)

    @property
    def is_embedded(self) -> bool:
        """Tells whether this is the embedded server: everything about it is known."""
        return self.access_key is not None

    @property
    def shown(self) -> str:
        """What messages call the server."""
        return self.endpoint or "AWS S3"

    def variables(self) -> dict[str, str]:
        """Returns the environment of a process of others that is to find this place (MLflow, a node)."""
        found = {BUCKET: self.bucket, "AWS_DEFAULT_REGION": self.region}
        if self.endpoint:
            found |= {"AWS_ENDPOINT_URL": self.endpoint, "MLFLOW_S3_ENDPOINT_URL": self.endpoint}
        if self.access_key and self.secret:
            found |= {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret}
        return found

    def save(self, path: Path) -> None:
        """Writes a private file (mode 600), and lets this process and its children find it."""
        part = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
        part.replace(path)
        os.environ[EMBEDDED] = str(path)


def external() -> Bucket | None:
    """Returns the S3 that STUDY_BUCKET chooses, or None."""
    if not (bucket := os.environ.get(BUCKET)):
        return None
    return Bucket(bucket, _first(ENDPOINTS), _first(REGIONS) or DEFAULT_REGION)


def found() -> Bucket:
    """Returns the place that this process was told of; raises StorageError where there is none."""
    if (place := external()) is not None:
        return place
    file = os.environ.get(EMBEDDED)
    try:
        return Bucket(**json.loads(Path(file or "").read_text()))
    except (OSError, ValueError, TypeError):
        raise StorageError(
            f"no S3 is known to this process: {BUCKET} chooses one, and `make up` starts the embedded "
            "one"
        ) from None


def _first(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
