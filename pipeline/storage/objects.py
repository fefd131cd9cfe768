"""One bucket on S3 or any compatible store, at the place that `pipeline.storage.bucket` names.

One file, although long: every request needs the same retries, bounds and errors, and nothing else may call boto3.
"""

import hashlib
import io
import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import boto3
import botocore.session
from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
)

from pipeline.environment import BUCKET
from pipeline.errors import StorageError, UnreachableError
from pipeline.storage import bucket as buckets
from pipeline.storage.bucket import DEFAULT_REGION, Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REFUSED = {"403", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "Forbidden"}
ABSENT = {"404", "NoSuchKey", "NotFound"}
MADE_BY_ANOTHER = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}  # since we looked for it
# keeps boto3 from reading profiles and files when everything is known
ISOLATED = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# answers to a conditional put: another was first; the store does not support it
THERE_ALREADY = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
UNCONDITIONAL = {"501", "NotImplemented"}
RETRY_EVERY_S = 3.0
# the longest that a request may take, retries included; and one for a whole, perhaps large, file
LONGEST_S, LONGEST_FILE_S = 1800.0, 6 * 3600.0
OF_FILES = {"upload", "download", "digest"}
PIECE_BYTES = 1 << 20
P = ParamSpec("P")
T = TypeVar("T")


class Listed(NamedTuple):
    """An object in a listing: its size in bytes, its ETag, and when it was written (seconds since 1970)."""

    bytes: int
    etag: str
    modified: float


def _patient(
    request: Callable[Concatenate["Storage", P], T],
) -> Callable[Concatenate["Storage", P], T]:
    """Repeats a request while S3 does not answer, until the storage's `patience_s` have passed."""

    @wraps(request)
    def repeated(storage: "Storage", /, *arguments: P.args, **options: P.kwargs) -> T:
        deadline = time.monotonic() + storage.patience_s
        told = False
        while True:
            try:
                where = (
                    f"s3://{storage.bucket}/{next(iter(arguments), '')} at {storage.place.shown}"
                )
                asked = partial(request, storage, *arguments, **options)
                return _bounded(asked, request.__name__, where)
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise
                if not told:
                    told = True
                    print(f"warning: {error}; retrying for {storage.patience_s:.0f} s",
                          file=sys.stderr, flush=True)  # fmt: skip
                time.sleep(RETRY_EVERY_S)

    return repeated


def _bounded(request: Callable[[], T], name: str, where: str) -> T:
    """Returns what a request returns; raises UnreachableError if it takes longer than any should.

    A server that sends a byte now and then keeps each of the client's reads within its timeout, and the
    request as a whole going forever. The thread that still waits for it ends with the process.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            answer.set_exception(error)

    threading.Thread(target=work, name=f"S3 {name}", daemon=True).start()
    longest_s = LONGEST_FILE_S if name in OF_FILES else LONGEST_S
    if not wait([answer], longest_s).done:
        raise UnreachableError(
            f"{where}: {name} did not finish within {longest_s:.0f} s, though bytes arrive: "
            "check the server and the network"
        )
    return answer.result()


class Storage:
    """A bucket; every method may raise StorageError, which names the address and the key.

    If S3 does not answer, a request is repeated for `patience_s` seconds before it fails; one that is a probe
    gives up within a minute.
    """

    def __init__(
        self, bucket: str | None = None, patience_s: float = 0.0, at: Bucket | None = None,
        *, is_probe: bool = False,
    ) -> None:  # fmt: skip
        self.place = at or buckets.found()
        self.bucket = bucket or self.place.bucket
        self.patience_s = patience_s
        with self._named():
            # one client for all if the place holds the keys; other keys may change meanwhile
            make = _client if self.place.is_embedded else _client.__wrapped__
            self._client = make(self.place, is_probe)

    def __reduce__(self) -> tuple[type["Storage"], tuple[str, float]]:
        # another process makes its own client, and finds the keys through its own environment
        return Storage, (self.bucket, self.patience_s)

    @contextmanager
    def _named(self, key: str = "") -> Iterator[None]:
        """Turns the client's errors into StorageError with the address, the key and a next step."""
        where = f"s3://{self.bucket}/{key} at {self.place.shown}"
        try:
            yield
        except NoCredentialsError as error:
            raise StorageError(
                f"{where}: no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "?")
            if code in REFUSED:
                raise StorageError(
                    f"{where}: the keys are refused ({code}): check AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY and the bucket's policy"
                ) from error
            if code == "NoSuchBucket":
                raise StorageError(f"{where}: no such bucket: create it or set {BUCKET}") from error
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = UnreachableError if status >= 500 else StorageError
            raise kind(f"{where}: {error}") from error
        except S3UploadFailedError as error:  # boto3 wraps whatever it was
            cause = error.__context__
            status = getattr(cause, "response", {}).get("ResponseMetadata", {})
            gone = status.get("HTTPStatusCode", 0) >= 500 or isinstance(cause, BotoCoreError)
            kind = UnreachableError if gone else StorageError
            raise kind(f"{where}: {error}: check the keys and the bucket") from error
        except (BotoCoreError, RetriesExceededError) as error:
            raise UnreachableError(
                f"{where}: cannot be reached ({type(error).__name__}): is the server up? `make up` "
                "starts the embedded one; otherwise check AWS_ENDPOINT_URL and the network"
            ) from error

    def ensure_bucket(self) -> None:
        """Makes sure that the bucket exists and accepts the keys."""
        with self._named():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in ABSENT | {"NoSuchBucket"}:
                    raise
                self._create_bucket()

    def _create_bucket(self) -> None:
        region = self.place.region
        elsewhere = self.place.endpoint is None and region != DEFAULT_REGION
        try:
            if elsewhere:  # AWS requires the region here, but refuses the default one
                constraint: Any = {"LocationConstraint": region}
                self._client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=constraint)
            else:
                self._client.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in MADE_BY_ANOTHER:
                raise
            self._client.head_bucket(Bucket=self.bucket)  # refused if it is someone else's

    @_patient
    def put(self, key: str, content: bytes) -> None:
        """Stores an object; it is there whole or not at all."""
        with self._named(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def put_new(self, key: str, content: bytes) -> bool:
        """Stores an object if there is none; tells whether the stored one is then this one.

        `content` must differ from every other writer's. In a store with conditional puts one writer
        wins; in one without, the last of several at the same moment wins, and the others see that.
        """
        self._put_if_none(key, content)
        return self.get(key) == content

    @_patient
    def _put_if_none(self, key: str, content: bytes) -> None:
        with self._named(key):
            try:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "?")
                if code in UNCONDITIONAL:
                    self._client.put_object(Bucket=self.bucket, Key=key, Body=content)
                elif code not in THERE_ALREADY:
                    raise

    @_patient
    def get(self, key: str) -> bytes | None:
        """Returns an object's bytes, or None if there is none."""
        with self._named(key):
            try:
                return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ABSENT:
                    return None
                raise

    @_patient
    def folders(self, prefix: str) -> list[str]:
        """Returns the names of the folders directly below a prefix, without listing what is in them."""
        with self._named(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
            return sorted(name[len(prefix) :].rstrip("/") for name in found)

    def keys(self, prefix: str) -> list[str]:
        """Returns the keys under a prefix, sorted."""
        return list(self.listing(prefix))

    @_patient
    def digest(self, key: str, algorithm: str) -> tuple[str, int] | None:
        """Returns the digest and the size in bytes of an object, read in pieces; None if there is none."""
        with self._named(key):
            try:
                body = self._client.get_object(Bucket=self.bucket, Key=key)["Body"]
                found, size = hashlib.new(algorithm, usedforsecurity=False), 0
                for piece in body.iter_chunks(PIECE_BYTES):
                    found.update(piece)
                    size += len(piece)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ABSENT:
                    return None
                raise
            return found.hexdigest(), size

    @_patient
    def listing(self, prefix: str) -> dict[str, Listed]:
        """Returns what is listed of the objects under a prefix, by their keys, sorted."""
        with self._named(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            entries = [entry for page in pages for entry in page.get("Contents", ())]
            return {
                entry["Key"]: Listed(
                    entry["Size"], entry.get("ETag", ""), entry["LastModified"].timestamp()
                )
                for entry in sorted(entries, key=lambda entry: entry["Key"])
            }

    @_patient
    def delete(self, *keys: str) -> None:
        """Deletes objects; those that do not exist count as deleted."""
        for key in keys:
            with self._named(key):
                self._client.delete_object(Bucket=self.bucket, Key=key)

    @_patient
    def upload(self, key: str, path: Path) -> None:
        """Stores a file; it is there whole or not at all."""
        with self._named(key):
            self._client.upload_file(str(path), self.bucket, key)

    @_patient
    def download(self, key: str, path: Path) -> None:
        """Writes an object to `path`."""
        with self._named(key):
            self._client.download_file(self.bucket, key, str(path))


@cache
def _client(at: Bucket, is_probe: bool = False) -> "S3Client":
    """Returns a client to which every setting that the environment could change is passed explicitly."""
    shared: Any = {
        "connect_timeout": 5,
        "read_timeout": 20 if is_probe else 60,
        "retries": {"mode": "standard", "total_max_attempts": 2 if is_probe else 4},
        # what is read has checksums of ours; botocore's check ends in an AttributeError on an answer of 500 to 599
        # that has a checksum, as rclone gives to who reads what another writes at that moment
        "response_checksum_validation": "when_required",
    }
    if at.endpoint:
        shared |= {
            "s3": {"addressing_style": "path", "use_accelerate_endpoint": False},
            "use_dualstack_endpoint": False,
            "use_fips_endpoint": False,
        }
    if at.is_embedded:
        shared |= {"proxies": {}, "request_checksum_calculation": "when_supported"}
    # not the default session, which remembers the first keys it saw
    session = (
        _isolated()
        if at.is_embedded
        else boto3.Session(botocore_session=botocore.session.Session())
    )
    return session.client(
        "s3",
        config=Config(**shared),
        endpoint_url=at.endpoint,
        region_name=at.region,
        aws_access_key_id=at.access_key,
        aws_secret_access_key=at.secret,
    )


@cache
def _isolated() -> boto3.Session:
    """Returns a session that reads nothing of the user's, and what describes S3 once for all its clients."""
    return boto3.Session(botocore_session=botocore.session.Session(session_vars=ISOLATED))


# a child that shared its parent's connections would read the parent's answers
os.register_at_fork(after_in_child=_client.cache_clear)


def in_prefix(address: str, patience_s: float = 0.0) -> tuple[str, str, dict[str, tuple[int, str]]]:
    """Returns bucket, prefix, and size and ETag of each object under an s3:// prefix by its name there.

    Raises StorageError if there is none.
    """
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    found = Storage(bucket, patience_s=patience_s).listing(prefix)
    if not found:
        raise StorageError(f"{address}: no object lies under this prefix: check data.archive")
    return bucket, prefix, {key[len(prefix) :]: one[:2] for key, one in found.items()}


def fetch_address(address: str, path: Path) -> None:
    """Writes the object at s3://bucket/key to `path`; a prefix, which ends in /, as a tar.

    The tar is sorted and has no timestamps, so the same objects give the same bytes.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    storage = Storage(bucket)
    if not address.endswith("/"):
        storage.download(key, path)
        return
    keys = storage.keys(key)
    if not keys:
        raise StorageError(f"{address}: no object lies under this prefix: check data.archive")
    with tarfile.open(path, "w") as tar:
        for name in keys:
            content = storage.get(name)
            if name.endswith("/") or content is None:
                continue
            member = tarfile.TarInfo(name[len(key) :])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
