"""`make serve RUN=<row>` or `make serve ENSEMBLE=1`: classifies images by HTTP, with MLflow's scoring server."""

from pathlib import Path

from infra.local import s3, ui
from pipeline import command, params
from pipeline.errors import ParamsError
from pipeline.files import scratch
from pipeline.params import Study
from pipeline.tracking import results, scoring

PORT, DEFAULT_PORT = "STUDY_SERVE_PORT", 5001
TOKEN = "serve_token"
EXAMPLE = """\
{what} at {address}/invocations, for whoever has the token (Ctrl-C ends it):

  base64 < image.png | tr -d '\\n' | sed 's/.*/{{"dataframe_records": [{{"image": "&"}}]}}/' |
    curl {address}/invocations -H @<(sed 's/^/Authorization: Bearer /' {token}) \\
      -H "Content-Type: application/json" -d @-

Instead of "image" (a PNG, JPEG or other file in base64), "pixels" may have height x width x channels numbers."""


def members_of(study: Study, run: str, ensemble: str) -> list[str]:
    """Returns the rows that a user asks for; raises ParamsError."""
    if bool(run) == bool(ensemble):
        raise ParamsError(f"wanted RUN=<row> or ENSEMBLE=1; the rows are {', '.join(study.models)}")
    if ensemble:
        return list(study.ensemble.members)
    params.row_of(study, run)
    return [run]


def main(run: str = "run=", ensemble: str = "ensemble=") -> None:
    """Serves until interrupted."""
    study = params.load()
    members = members_of(study, run.removeprefix("run="), ensemble.removeprefix("ensemble="))
    at = ui.taken(PORT, DEFAULT_PORT)
    with scratch("serve") as folder:
        model = folder / "model"
        results.save(model, study, members)
        app, secret = scoring.app_of(model), ui.token(TOKEN)
        what = members[0] if len(members) == 1 else f"{len(members)} networks together"
        address = f"http://127.0.0.1:{at.getsockname()[1]}"
        print(
            EXAMPLE.format(what=what, address=address, token=shown(s3.secret_file(TOKEN))),
            flush=True,
        )
        ui.listen(app, secret, at)


def shown(path: Path) -> str:
    """Returns a path as a shell writes it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


if __name__ == "__main__":
    command.main(main)
