"""Stage `ensemble`: the members' predictions -> the declared and the greedy ensemble's scores."""

import io
from pathlib import Path

import numpy as np

from pipeline import params
from pipeline.evaluation import predictions
from pipeline.evaluation.ensemble import average, greedy, quality
from pipeline.evaluation.scores import gain_pct, scores
from pipeline.files import write, write_json
from stages import stage


def main() -> None:
    """Scores the ensembles."""
    study = params.load()
    rows = {
        name: predictions.load(Path("scores") / name / "predictions.npz") for name in study.models
    }
    val = {name: row["val"] for name, row in rows.items()}
    choices = {"declared": list(study.ensemble.members), "greedy": greedy(val)}
    found, tables = {}, {}
    for kind, members in choices.items():
        # the best member is the best on validation, never on test
        best = min(members, key=lambda name: quality(val[name]))
        found[kind] = {"members": members, "best_member": best}
        for split in predictions.SPLITS:
            together = average([rows[name][split] for name in members])
            gain, interval = gain_pct(together, rows[best][split], study.evaluation)
            found[kind] |= scores(together, split, study.evaluation)
            found[kind] |= {f"{split}_gain_pct": gain, f"{split}_gain_pct_ci95": interval}
            tables[f"{kind}_{split}_probabilities"] = together.probabilities.astype(np.float32)
            tables[f"{split}_labels"], tables[f"{split}_ids"] = together.labels, together.ids
        print(f"{kind} ({', '.join(members)}): test error {found[kind]['test_error_pct']:.2f} %")
    out = io.BytesIO()
    np.savez_compressed(out, **tables)
    write(Path("ensemble/predictions.npz"), out.getvalue())
    write_json(Path("ensemble/metrics.json"), found)


if __name__ == "__main__":
    stage.main(main)
