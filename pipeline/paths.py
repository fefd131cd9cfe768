"""Where a study's files are, relative to its folder; dvc.yaml uses the same paths."""

from pathlib import Path

ARCHIVE = Path("data/archive")
ARRAYS = Path("data/arrays.safetensors")
DIGEST = Path("data/digest.json")
ACCOUNT = Path("data/account.json")
ENSEMBLE = Path("ensemble")
PAGE, REPORT = Path("report/index.html"), Path("report/report.json")
OTHER_PAGE = Path("report/other.html")  # `make page`
TABLES, PLOTS = Path("report/tables"), Path("report/plots")
SHOWN_METRICS = Path("report/metrics.json")  # by `dvc metrics show`
PAPER = Path("report/paper")  # `make paper`
STATE = Path("state")
PLAN = STATE / "plan.json"
SOURCE = STATE / "source.json"  # what `fetch` depends on
WEIGHTS, FACTS = "model.safetensors", "model.json"
MEMBERS = "members.json"  # of a classifier
METRICS, PREDICTIONS, RESPONSES = "metrics.json", "predictions.npz", "responses.csv"


def run(row: str) -> Path:
    """Returns the folder of a trained row: model.safetensors, model.json, history.csv."""
    return Path("runs") / row


def scores(row: str) -> Path:
    """Returns the folder of an evaluated row: predictions.npz, metrics.json, responses.csv."""
    return Path("scores") / row


def chosen(search: str) -> Path:
    """Returns the file of the schedule that a search chose."""
    return Path("tuned") / f"{search}.yaml"


def trials(search: str) -> Path:
    """Returns the file with the table of a search's trials."""
    return Path("tuned") / f"{search}.csv"


def trial_curves(search: str) -> Path:
    """Returns the file with the errors of a search's trials by update."""
    return Path("tuned") / f"{search}-curves.csv"
