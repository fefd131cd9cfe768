"""Stage `evaluate`: a trained network -> predictions on val and test, and scores."""

from pathlib import Path

from pipeline import params
from pipeline.data import arrays
from pipeline.evaluation import predictions
from pipeline.evaluation.scores import Predictions, scores, softmax
from pipeline.files import write_json
from pipeline.models import weights
from pipeline.models.predict import device
from stages import stage

TIMINGS = ("updates", "train_images_per_s", "train_seconds", "wall_seconds")


def main(name: str) -> None:
    """Evaluates the row `name`."""
    study = params.load()
    row, recipe = params.row_of(study, name), study.evaluation
    data, trained = arrays.load(Path("data/arrays.safetensors")), weights.load(Path("runs") / name)
    logits, found = {}, {}
    for split in arrays.SPLITS:
        part = getattr(data, split)
        logits[split] = predictions.predictions_of(
            trained.model, part, data, row.precision, device(), f"{name} on {split}"
        )
        said = Predictions(softmax(logits[split]), part.labels.numpy(), part.ids.numpy())
        found.update(scores(said, split, recipe))
    found.update({timing: trained.facts[timing] for timing in TIMINGS})
    predictions.save(Path("scores") / name / "predictions.npz", logits, data)
    write_json(Path("scores") / name / "metrics.json", found)
    low, high = found["test_error_pct_ci95"]
    print(f"{name}: test error {found['test_error_pct']:.2f} % (95 %: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    stage.main(main)
