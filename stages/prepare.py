"""Stage `prepare`: data/archive -> arrays, split and mean; of photographs shards on S3 and their index."""

from pathlib import Path

from pipeline import params
from pipeline.data import dataset
from pipeline.data.sources import in_memory
from pipeline.params import Sharded
from stages import fitting, stage
from stages.fitting import settle


def main() -> None:
    """Prepares the data set."""
    study = params.load()
    if isinstance(study.data, Sharded):
        from stages.pack import pack  # Ray: not needed for small sets

        text = pack(study)
    else:
        prepared, found = in_memory.prepare(study.data, Path("data/archive"))
        settle(study, found)
        recipe = fitting.recipe_of(study)
        dataset.save(
            prepared, Path("data/arrays.safetensors"), Path("data/digest.json"), recipe=recipe
        )
        counts = ", ".join(
            f"{len(prepared[f'{split}_labels']):,} {split}" for split in dataset.SPLITS
        )
        text = f"{counts} images of {'x'.join(map(str, prepared['mean'].shape))}"
    print(f"{study.data.kind}: {text}")
    fitting.require_if_prepared(study)  # before a search or a training begins


if __name__ == "__main__":
    stage.main(main)
