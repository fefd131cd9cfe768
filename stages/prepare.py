"""Stage `prepare`: data/archive -> arrays, split and mean; their digest."""

from pathlib import Path

from pipeline import params
from pipeline.data import arrays
from stages import stage


def main() -> None:
    """Prepares the arrays."""
    study = params.load()
    prepared = arrays.prepare(study.data, Path("data/archive"))
    arrays.save(prepared, Path("data/arrays.safetensors"), Path("data/digest.json"))
    counts = ", ".join(f"{len(prepared[f'{split}_labels']):,} {split}" for split in arrays.SPLITS)
    print(f"{study.data.kind}: {counts} images of {'x'.join(map(str, prepared['mean'].shape))}")


if __name__ == "__main__":
    stage.main(main)
