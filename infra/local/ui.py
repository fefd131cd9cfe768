"""The MLflow UI behind a token: loopback alone does not keep out the other users of the host.

Neither does MLflow: anyone who may create an experiment can read and write the server's files. So no
part of it can be reached without the token, which is in the state folder (mode 600) and in the printed
address; a client sends it (`MLFLOW_TRACKING_TOKEN`), a browser gets a cookie for it. Browsers send cookies to whoever
listens on the host, later too: this one has a name and a value of one process, and is worth nothing when that has ended.
"""

import base64
import json
import os
import secrets
import socket
from collections.abc import MutableMapping

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.local import s3
from pipeline.errors import StudyError
from pipeline.storage.bucket import Bucket
from pipeline.tracking.address import COLUMNS, FOLDER, PROXIED

DEFAULT_PORT = 5000
COOKIE = "study-ui"
# Removes the token from the address, but keeps what follows the #. At the first visit MLflow would open
# its assistant over the table, and show none of the columns that matter here.
ENTRANCE = f"""<!doctype html><title>MLflow</title><script>
const first = (key, value) => localStorage.getItem(key) ?? localStorage.setItem(key, value);
const id = location.hash.match(/experiments\\/(\\d+)/)?.[1];
first("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
first("mlflow.workflowType_v1", '"machine_learning"');
first(`MLflowLocalStorage-1.1-ExperimentPage-["${{id}}"]-ReactComponentState`,
  JSON.stringify({{selectedColumns: {json.dumps(COLUMNS)}}}));
location.replace(location.pathname + location.hash);
</script>"""


class Gate:
    """Lets only requests with the token through to an application."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        self._name, self._cookie = f"{COOKIE}-{secrets.token_hex(4)}", secrets.token_hex(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401, sets the cookie, or passes the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        if _equal(asked.query_params.get("token"), self._token):
            answer: Response = HTMLResponse(ENTRANCE)
            answer.set_cookie(self._name, self._cookie, httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif _equal(asked.cookies.get(self._name), self._cookie) or _equal(
            _told_by_header(asked), self._token
        ):
            await self._app(scope, receive, send)
        else:
            text = "Wanted the token: `make ui` prints an address that has it, `make serve` a command.\n"
            await PlainTextResponse(text, status_code=401)(scope, receive, send)


def _equal(told: str | None, wanted: str) -> bool:
    return told is not None and secrets.compare_digest(told.encode(), wanted.encode())


def _told_by_header(asked: HTTPConnection) -> str | None:
    """Returns the token in `Authorization: Bearer`, or the password of `Basic`."""
    kind, _, value = asked.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except ValueError:
            return None
    return None


def token(name: str = "ui_token") -> str:
    """Returns a token of this user's, by default the UI's, which is created once."""
    return s3.secret_file(name).read_text().strip()


def serve(uri: str, place: Bucket, at: socket.socket) -> None:
    """Serves the MLflow UI of a database, on a port that is `taken`, until interrupted."""
    variables: MutableMapping[str, str] = os.environ
    variables.update(place.variables())  # MLflow fetches artifacts with boto3, which reads these
    variables.update(settings(uri, f"s3://{place.bucket}/{FOLDER}"))
    from mlflow.server.fastapi_app import app

    listen(app, token(), at)


def settings(uri: str, artifacts: str) -> dict[str, str]:
    """Returns the variables by which MLflow's server keeps runs and models in a database, and artifacts in a place that
    only the server needs keys for."""
    from mlflow import server

    return {
        server.BACKEND_STORE_URI_ENV_VAR: uri,
        server.REGISTRY_STORE_URI_ENV_VAR: uri,
        server.ARTIFACT_ROOT_ENV_VAR: PROXIED,
        server.SERVE_ARTIFACTS_ENV_VAR: "true",
        server.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def listen(app: ASGIApp, secret: str, at: socket.socket) -> None:
    """Serves an application on a port that is `taken`, behind a token, until interrupted."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(Gate(app, secret), log_level="warning")).run(sockets=[at])


def taken(variable: str = "STUDY_UI_PORT", default: int = DEFAULT_PORT) -> socket.socket:
    """Returns a socket that listens on the port that a variable names, else on the default one.

    It is taken before its address, which has a token, is told: nobody else can then listen there. Raises
    StudyError if the port is in use.
    """
    found, port = socket.socket(), free_port(variable, default)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
    try:
        found.bind(("127.0.0.1", port))
        found.listen()
    except OSError as error:
        found.close()
        raise StudyError(f"port {port} is in use: set {variable} to a free one") from error
    return found


def free_port(variable: str, default: int) -> int:
    """Returns the port that a variable names, else the default one; raises StudyError if it is in use."""
    port = s3.port_from(variable) or default
    if s3.answers(port):
        raise StudyError(f"port {port} is in use: set {variable} to a free one")
    return port
