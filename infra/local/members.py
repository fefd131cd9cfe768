"""MLflow's application for a team, less what would give its members the files and programs of who serves it.

Whoever has a password may, with MLflow alone, make an experiment whose artifacts lie in a folder of the server's
host, and let the assistant, which is meant for one's own machine, run programs there.
"""

import json
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSISTANT = "/mlflow/assistant"
# what may name a place of artifacts, in the two spellings that MLflow takes, and the places that are no files of the
# server's host
PLACES = (
    "artifact_location", "artifactLocation", "artifact_uri", "artifactUri", "source", "storage_location",
    "storageLocation",
)  # fmt: skip
PROXIED = ("mlflow-artifacts:", "models:/", "runs:/")
LARGEST_BYTES = 10_000_000  # of a request that is JSON; artifacts come as they are


class Members:
    """Lets all requests through but those."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403, or passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked, why = Request(scope, receive), ""
        if ASSISTANT in scope["path"]:
            why = "the assistant runs programs on the server's host"
        elif scope["method"] in ("POST", "PUT", "PATCH") and not _is_upload(scope["path"]):
            content = await _read(asked)
            receive = _again(content, receive)
            if len(content) > LARGEST_BYTES:
                why = f"a request that is no upload has more than {LARGEST_BYTES:,} bytes"
            elif _names_a_place(content):
                why = f"artifacts of a team lie where its server puts them: wanted {' or '.join(PROXIED)}"
        if why:
            said = {"error_code": "PERMISSION_DENIED", "message": why}
            await JSONResponse(said, status_code=403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_upload(path: str) -> bool:
    return "/mlflow-artifacts/artifacts" in path or path.endswith("/upload-artifact")


async def _read(asked: Request) -> bytes:
    """Returns a request's body; of one that is too large to be JSON of MLflow's, its beginning."""
    content = b""
    async for part in asked.stream():
        content += part
        if len(content) > LARGEST_BYTES:
            break
    return content


def _again(content: bytes, receive: Receive) -> Receive:
    """Returns what gives a body that has been read, and then what comes."""
    parts: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def give() -> Message:
        return parts.pop() if parts else await receive()

    return give


def _names_a_place(content: bytes) -> bool:
    """Tells whether a request's JSON names a place of artifacts that is not the server's own."""
    try:
        said = json.loads(content or b"{}")
    except ValueError:
        return False
    if not isinstance(said, MutableMapping):
        return False
    places: list[Any] = [said.get(key) for key in PLACES]
    return any(place and not str(place).startswith(PROXIED) for place in places)


def create() -> ASGIApp:
    """Returns the application, by the environment that `infra.local.team` gives."""
    from mlflow.server.auth import create_app

    return Members(create_app())
