"""Stage `prepare`: data/archive -> arrays, split and mean; for photographs shards on S3, an index."""

from pipeline import command, params, paths
from pipeline.data import dataset, fitting
from pipeline.data.sources import in_memory
from pipeline.params import Sharded


def main() -> None:
    """Prepares the data set."""
    study = params.load()
    if isinstance(study.data, Sharded):
        from infra.local import s3  # as Ray, not needed for small sets
        from pipeline.execution.photographs import pack

        with s3.kept() as storage:
            text = pack(study, storage)
    else:
        prepared, found = in_memory.prepare(study.data, paths.ARCHIVE)
        fitting.settle(study, found)
        recipe = fitting.recipe_of(study)
        dataset.save(prepared, paths.ARRAYS, paths.DIGEST, recipe=recipe)
        counts = ", ".join(
            f"{len(prepared[f'{split}_labels']):,} {split}" for split in dataset.SPLITS
        )
        text = f"{counts} images of {'x'.join(map(str, prepared['mean'].shape))}"
    print(f"{study.data.kind}: {text}")
    fitting.require_if_prepared(study)  # before a search or a training begins


if __name__ == "__main__":
    command.stage(main, lambda: params.load().data)
