"""Models in MLflow: each of a run, and a version of a registered model, which belongs to a network.

The seeds of a network are versions of one registered model, `<study>-<network>`. The alias `best` is the
version with the least error on val, never on test; `models:/<name>/latest`, which MLflow reserves, the one
published last.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import scratch
from pipeline.tracking.address import SHA256, key_of
from pipeline.tracking.run import Upload

VAL_ERROR, DATA = "val_error_pct", "data_digest"  # tags
BEST = "best"


def put(
    client: Any, experiment: str, run: str, name: str, tags: Mapping[str, str],
    save: Callable[[Path], None], upload: Upload | None,
) -> str:  # fmt: skip
    """Returns the URI of a run's model, which `save` writes to a folder, uploaded if it is not there.

    `tags` says what it was made from; a run has one model of it. `upload` stores a file under a key of the
    study's bucket; without it MLflow's server takes the files.
    """
    found = client.search_logged_models([experiment], f"tags.run = '{run}'")
    mine = [model for model in found if all(model.tags.get(tag) == tags[tag] for tag in tags)]
    ready = [model for model in mine if str(model.status) == "READY"]
    if ready:
        return str(ready[0].model_uri)
    with scratch("mlflow-model") as around:
        save(folder := around / "model")
        files = {
            str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()
        }
        sums = {
            f"{SHA256}{name}": hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in files.items()
        }
        facts = {**tags, "run": run, **sums}
        model = mine[0] if mine else client.create_logged_model(
            experiment, name, run, tags=facts, model_type="classifier"
        )  # fmt: skip
        if upload is None:
            client.log_model_artifacts(model.model_id, str(folder))
        else:
            for inside, path in files.items():
                upload(key_of(model.artifact_location, inside), path)
    if mine:  # who made it did not come to its end
        client.set_logged_model_tags(model.model_id, facts)
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_uri)


def register(client: Any, name: str, uri: str, run: str, tags: Mapping[str, str]) -> str:
    """Returns the number of the version of registered model `name` that has these tags, made if need be.

    Sets the alias `best`. `tags` has the error on val.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = list(client.search_model_versions(f"name = '{name}'"))
    mine = next((one for one in versions if one.source == uri), None)
    if mine is None:
        model = uri.removeprefix("models:/")  # a server refuses a source that it is not told
        mine = client.create_model_version(name, uri, run, dict(tags), model_id=model)
        versions.append(mine)
    for tag, value in tags.items():
        if mine.tags.get(tag) != value:
            client.set_model_version_tag(name, mine.version, tag, value)
            mine.tags[tag] = value
    # of others' data, or registered by hand, there is no error to compare
    alike = [
        one for one in versions if VAL_ERROR in one.tags and one.tags.get(DATA) == tags.get(DATA)
    ]
    best = min(alike, key=lambda one: (float(one.tags[VAL_ERROR]), int(one.version)))
    if BEST not in best.aliases:
        client.set_registered_model_alias(name, BEST, best.version)
    return str(mine.version)
