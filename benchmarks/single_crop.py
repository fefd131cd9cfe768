"""The single view as we cut it and as torchvision does, on a trained network (docs/adr/0005).

Ours is one resize of the exact box; torchvision resizes the whole image to whole pixels and cuts whole pixels
out of it. For a row of the study in params.yaml that is trained, on the test images:

    python -m benchmarks.single_crop ROW
"""

import io
import sys
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms

from infra.local import s3
from pipeline import machine, params, paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.data.feeding import shown
from pipeline.data.feeding.loader import photos_of
from pipeline.data.feeding.pixels import to_rgb
from pipeline.models import weights
from pipeline.models.predict import device, predict
from pipeline.storage.shard_store import ShardCache

BATCH = 100


def by_torchvision(split: Split, crop_px: int) -> Iterator[Tensor]:
    """Yields the middle crops of a split in order, uint8 (n, crop, crop, 3)."""
    cut = transforms.Compose(
        [transforms.Resize(shown.resized_px(crop_px)), transforms.CenterCrop(crop_px)]
    )
    for places in torch.arange(len(split)).split(BATCH):
        images = []
        for place in places.tolist():
            with Image.open(io.BytesIO(photos_of(split).content(place))) as image:
                images.append(np.asarray(cut(to_rgb(image))))
        yield torch.from_numpy(np.stack(images))


def main(name: str) -> None:
    """Prints both errors, and by how much pixels and predictions differ."""
    row, trained = params.row_of(params.load(), name), weights.load(paths.run(name))
    assert row.crop_px is not None  # a study of photographs
    torch.set_num_threads(machine.cores())
    data = dataset.load(paths.ARRAYS, ShardCache(s3.connect(), machine.cores()))
    ways = {
        "ours": shown.single(data.test, row.crop_px, device()),
        "torchvision": by_torchvision(data.test, row.crop_px),
    }
    pixels, wrong = {}, dict[str, NDArray[np.bool_]]()
    for way, crops in ways.items():
        pixels[way] = torch.cat(list(crops)).cpu()
        inputs = (
            shown.less_mean(some.to(device()), trained.mean) for some in pixels[way].split(BATCH)
        )
        logits = torch.cat(list(predict(trained.model, inputs, row.precision))).cpu()
        wrong[way] = (logits.argmax(1) != data.test.labels).numpy()
        print(f"{way}: {100 * wrong[way].mean():.2f} % of {len(wrong[way]):,} test images wrong")
    apart = (pixels["ours"].int() - pixels["torchvision"].int()).abs().double()
    ours, theirs = wrong["ours"], wrong["torchvision"]
    print(
        f"pixels: {apart.mean():.2f} of 255 apart in the mean, {int(apart.max())} at most; wrong in ours "
        f"alone {int((ours & ~theirs).sum())}, in torchvision's alone {int((theirs & ~ours).sum())}"
    )


if __name__ == "__main__":
    main(sys.argv[1])
