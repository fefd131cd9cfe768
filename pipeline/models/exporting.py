"""Exports a trained network for other programs: classifier and backbone, as ONNX and torch.export.

Both take float32 images (N, C, H, W), mean subtracted, of any number and of any size within the limits
below. The classifier returns logits (N, classes), the backbone the feature maps C2 to C5 that detectors
and segmenters use (`ResNet.features`).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.models.resnet import ResNet

OPSET = 18
MOST_PX = 4096  # the longest side that an exported network takes
EXAMPLE_PX = 96, 128  # height and width of the traced images: no side of the last feature map is 1
# (a network with the 7x7 stem takes sides of 33 to 4,096 pixels, one with the 3x3 stem 8 to 4,096)


class Backbone(nn.Module):
    """The feature maps of a network, in order: C2, C3, C4 and, with the 7x7 stem, C5."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the feature maps, float32."""
        return tuple(self.model.features(images).values())


def export(model: ResNet, channels: int, folder: Path) -> list[Path]:
    """Writes classifier and backbone, each as .onnx and .pt2 (torch.export); returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.cpu().eval().to(memory_format=torch.contiguous_format)
    stages = [f"C{number}" for number in range(2, 2 + len(model.stages))]
    images = torch.zeros(2, channels, *EXAMPLE_PX)
    least = 8 if isinstance(model.pool, nn.Identity) else 33
    free = {
        0: torch.export.Dim("images", min=1),
        2: torch.export.Dim("height", min=least, max=MOST_PX),
        3: torch.export.Dim("width", min=least, max=MOST_PX),
    }
    written = []
    for name, network, outputs in (
        ("classifier", model, ["logits"]),
        ("backbone", Backbone(model), stages),
    ):
        program = torch.export.export(network, (images,), dynamic_shapes=(free,))
        torch.export.save(program, folder / f"{name}.pt2")
        torch.onnx.export(
            program, f=str(folder / f"{name}.onnx"), input_names=["images"], output_names=outputs,
            opset_version=OPSET, external_data=False, verbose=False,
        )  # fmt: skip
        written += [folder / f"{name}.pt2", folder / f"{name}.onnx"]
    return written
