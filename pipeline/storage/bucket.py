"""Which S3, which bucket and which keys to use: found once, then passed on explicitly.

`STUDY_BUCKET` chooses an S3 other than the embedded one, and AWS's own variables then give its address
and the keys. The embedded one is described in a private file that `STUDY_S3` names; the process that
started or found the server sets it for itself and its children, so that no key is in their environment.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.environment import BUCKET
from pipeline.errors import StorageError

EMBEDDED = "STUDY_S3"
DEFAULT_BUCKET, DEFAULT_REGION = "resnet-study", "us-east-1"
RESTART_S = 60.0  # a server that a stage keeps alive answers again by then, on a busy machine too
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # AWS's own order
REGIONS = ("AWS_DEFAULT_REGION", "AWS_REGION")


@dataclass(frozen=True)
class Bucket:
    """A bucket; `endpoint` None means AWS, keys None that boto3 looks for them in its usual places."""

    bucket: str
    endpoint: str | None
    region: str
    access_key: str | None = None
    secret: str | None = field(default=None, repr=False)

    @property
    def is_embedded(self) -> bool:
        """Tells whether this is the embedded server, the only one whose keys are known here."""
        return self.access_key is not None

    @property
    def shown(self) -> str:
        """The server's name in messages."""
        return self.endpoint or "AWS S3"

    def variables(self) -> dict[str, str]:
        """Returns the environment variables by which MLflow or a node finds this bucket."""
        found = {BUCKET: self.bucket, "AWS_DEFAULT_REGION": self.region}
        if self.endpoint:
            found |= {"AWS_ENDPOINT_URL": self.endpoint, "MLFLOW_S3_ENDPOINT_URL": self.endpoint}
        if self.access_key and self.secret:
            found |= {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret}
        return found

    def save(self, path: Path) -> None:
        """Writes the bucket to a private file (mode 600) that this process and its children then use."""
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
    """Returns the bucket that this process is to use; raises StorageError if there is none."""
    if (place := external()) is not None:
        return place
    file = os.environ.get(EMBEDDED)
    try:
        return Bucket(**json.loads(Path(file or "").read_text()))
    except (OSError, ValueError, TypeError):
        raise StorageError(
            f"this process knows of no S3: set {BUCKET} to choose one, or start the embedded one with "
            "`make up`"
        ) from None


def _first(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
