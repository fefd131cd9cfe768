"""MLflow's application for a team, less what would give its members the files and programs of who serves it.

Whoever has a password may, with MLflow alone, make an experiment whose artifacts lie in a folder of the server's
host, or say so of a trace in its tags, and let the assistant, which is meant for one's own machine, run programs
there.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSISTANT = "/mlflow/assistant"
# what names a place of artifacts wherever it stands, as a field or a tag, without "mlflow." and "_" and in small letters
PLACES = (
    "artifactlocation",
    "artifacturi",
    "storagelocation",
    "archivelocation",
    "defaultartifactroot",
)
SOURCE = "source"  # of a version of a model; elsewhere it is text
# the places that are no files of the server's host
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
        while isinstance(said, str):  # MLflow takes what earlier clients encoded twice
            said = json.loads(said)
    except ValueError:
        return False
    source = said.get(SOURCE) if isinstance(said, Mapping) else None
    return any(_is_elsewhere(place) for place in (source, *_places(said)) if place)


def _places(said: Any) -> Iterator[Any]:
    """Yields what a document's fields and tags say of places, at any depth."""
    left = [said]
    while left:
        match left.pop():
            case Mapping() as fields:
                yield from (value for name, value in fields.items() if _is_of_a_place(name))
                if _is_of_a_place(fields.get("key")):
                    yield fields.get("value")
                left += fields.values()
            case list() as parts:
                left += parts


def _is_of_a_place(name: object) -> bool:
    return str(name).rpartition(".")[2].replace("_", "").lower() in PLACES


def _is_elsewhere(place: object) -> bool:
    return not str(place).startswith(PROXIED) or ".." in unquote(unquote(str(place)))


def create() -> ASGIApp:
    """Returns the application, by the environment that `infra.local.team` gives."""
    from mlflow.server.auth import create_app

    return Members(create_app())
