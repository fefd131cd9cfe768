"""Stage `ensemble`: the members' predictions -> the declared and the greedy ensemble's scores."""

import io
from typing import Any

import numpy as np

from pipeline import command, params, paths
from pipeline.evaluation import predictions
from pipeline.evaluation.averaging import average, greedy, quality
from pipeline.evaluation.scores import Predictions, gain_pct, outcomes_of, scores
from pipeline.evaluation.tables import SCALES, SINGLE, TEN_CROPS
from pipeline.files import write, write_json


def main() -> None:
    """Scores the ensembles; of val all predictions are in memory at once, of test those of two networks."""
    study = params.load()
    files = {name: paths.scores(name) / paths.PREDICTIONS for name in study.models}
    val = {name: predictions.load(file, "val") for name, file in files.items()}

    def said(name: str, split: str, view: str = SINGLE) -> Predictions:
        return val[name] if split == "val" else predictions.load(files[name], split, view)

    classes = next(iter(val.values())).probabilities.shape[1]
    choices = {"declared": list(study.ensemble.members), "greedy": greedy(val)}
    found: dict[str, dict[str, Any]] = {}
    tables: dict[str, Any] = {}
    for kind, members in choices.items():
        # the best member is the best on validation, never on test
        best = min(members, key=lambda name: quality(val[name]))
        found[kind] = {"members": members, "best_member": best}
        for split in predictions.SPLITS:
            together = average(said(name, split) for name in members)
            gain, interval = gain_pct(together, said(best, split))
            found[kind] |= scores(outcomes_of(together), classes, split, study.evaluation)
            found[kind] |= {f"{split}_gain_pct": gain, f"{split}_gain_pct_ci95": interval}
            tables[f"{kind}_{split}_probabilities"] = together.probabilities.astype(np.float32)
            tables[f"{split}_labels"], tables[f"{split}_ids"] = together.labels, together.ids
        for view in (TEN_CROPS, SCALES) if study.evaluation.scales_px else ():
            shown = outcomes_of(average(said(name, "test", view) for name in members))
            found[kind] |= scores(shown, classes, f"test_{view}", study.evaluation)
        print(f"{kind} ({', '.join(members)}): test error {found[kind]['test_error_pct']:.2f} %")
    out = io.BytesIO()
    np.savez_compressed(out, **tables)
    write(paths.ENSEMBLE / paths.PREDICTIONS, out.getvalue())
    write_json(paths.ENSEMBLE / paths.METRICS, found)


if __name__ == "__main__":
    command.stage(main, params.load)
