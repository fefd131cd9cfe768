"""`python -m infra.local up|down|status|doctor|ui|cluster-up|cluster-down|team-up|team-down|team-user`: the local services."""

import sys
from pathlib import Path

from configobj import ConfigObj

from infra.local import s3
from pipeline import environment
from pipeline.errors import StudyError, without_password
from pipeline.storage.layout import project

REMOTE = 'remote "s3"'
OURS = ("url", "endpointurl", "region", "credentialpath", "profile")


def up() -> None:
    """Starts the embedded S3 server if it is needed, and points DVC's remote at the bucket."""
    place = s3.connect().place
    endpoint = place.endpoint or f"https://s3.{place.region}.amazonaws.com"
    url = f"s3://{place.bucket}/{project()}/dvc"
    wanted = {"url": url, "endpointurl": endpoint, "region": place.region}
    if place.is_embedded:
        wanted["credentialpath"] = str(s3.credentials_file())
    _point_dvc_there(Path(".dvc/config.local"), wanted)
    kind = "embedded" if place.is_embedded else "external"
    print(f"S3 ({kind}): s3://{place.bucket} at {endpoint}; DVC's remote points at it")


def _point_dvc_there(path: Path, wanted: dict[str, str]) -> None:
    """Writes the settings of DVC's remote into its local configuration, which Git ignores.

    `dvc remote modify` does the same, but takes a second for each setting.
    """
    config = ConfigObj(str(path) if path.exists() else None, encoding="utf-8")
    before = dict(config.get(REMOTE, {}))
    others = {name: value for name, value in before.items() if name not in OURS}
    if others | wanted != before:
        config[REMOTE] = others | wanted
        config.filename = str(path)
        config.write()


def down() -> None:
    """Stops the embedded S3 server; its data stay."""
    print("stopped the embedded S3 server" if s3.stop() else "no embedded S3 server is running")


def cluster_up() -> None:
    """Starts the local Ray cluster."""
    from infra.local import cluster

    address = cluster.up()
    print(f"Ray cluster: a head and {cluster.WORKERS} workers; dashboard and Jobs API at {address}")
    print(f"to train there: export RAY_ADDRESS={address}")


def cluster_down() -> None:
    """Stops the local Ray cluster; its jobs end with it, their checkpoints stay."""
    from infra.local import cluster

    print("stopped the local Ray cluster" if cluster.down() else "no local Ray cluster is running")


def status() -> None:
    """Says what is running and where its data are."""
    server, held = s3.running(), s3.is_held(s3.state_dir() / "server.lock")
    other = "does not answer to its keys: `make down`, `make up`" if held else "not running"
    print(f"embedded S3: {f'{server.endpoint} (process {server.pid})' if server else other}")
    print(f"its data, keys and log: {s3.state_dir()}")
    from infra.local import cluster, team

    print(f"Ray cluster of `make cluster-up`: {cluster.running() or 'not running'}")
    print(f"a team's MLflow: {team.running() or 'not running'}")


def ui() -> None:
    """Serves the MLflow UI on loopback, behind a token, until interrupted."""
    from infra.local import ui as mlflow_ui  # MLflow: a second to import
    from pipeline.tracking import address
    from pipeline.tracking.run import make_tables

    uri = address.tracking_uri()
    if uri.startswith(("http://", "https://")):
        where = f"{without_password(uri)}/{address.page(address.experiment_id(uri))}"
        print(f"MLflow UI: {where} (MLFLOW_TRACKING_URI)")
        return
    make_tables(uri)
    storage, page = s3.connect(), address.page(address.experiment_id(uri))
    at = mlflow_ui.taken()
    port = at.getsockname()[1]
    print(
        f"MLflow UI: http://127.0.0.1:{port}/?token={mlflow_ui.token()}{page}\n"
        "(Ctrl-C ends it; the address contains a token: anyone who has it can read this study's files)",
        flush=True,
    )
    mlflow_ui.serve(uri, storage.place, at)


def team_up() -> None:
    """Starts a team's MLflow."""
    from infra.local import team

    print(
        f"the team's MLflow: {team.up()}; `make team-user NAME=...` adds a user (data: {team.folder()})"
    )


def team_down() -> None:
    """Stops a team's MLflow; its data stay."""
    from infra.local import team

    print("stopped the team's MLflow" if team.down() else "no team's MLflow is running")


def team_user() -> None:
    """Adds a user of the team's MLflow."""
    from infra.local import team

    print(f"for that user's shell, and for nobody else: source {team.add_user(sys.argv[2])}")


def study() -> None:
    """Reruns the study; exits with DVC's status."""
    from infra.local import make_study as whole

    sys.exit(whole.main())


def doctor() -> None:
    """Checks everything that the study needs; exits with 1 if something is wrong."""
    from infra.local import doctor as checks

    sys.exit(checks.main())


if __name__ == "__main__":
    commands = {
        "up": up, "down": down, "status": status, "study": study, "ui": ui, "doctor": doctor,
        "cluster-up": cluster_up, "cluster-down": cluster_down,
        "team-up": team_up, "team-down": team_down, "team-user": team_user,
    }  # fmt: skip
    if len(sys.argv) != 2 + (sys.argv[1:2] == ["team-user"]) or sys.argv[1] not in commands:
        sys.exit(f"usage: python -m infra.local {'|'.join(commands)}")
    environment.settle()
    try:
        commands[sys.argv[1]]()
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
