"""A random box of each image, resized to the crop: the base of section 3.4's and Inception's crops."""

import numpy as np
import torch
from torch import Tensor

from pipeline.data.feeding.resample import resample


class BoxCropper:
    """Crops boxes that a subclass draws, mirrors them and shifts their colors.

    The mean image is resized to the crop and subtracted after cropping, as the authors' release does
    with its mean of 224x224 pixels. `colour_sd` is the standard deviation of the color shift.
    """

    def __init__(
        self, crop_px: int, *, mirror: bool, colour_sd: float, mean: Tensor, colour: Tensor
    ) -> None:
        self.size = crop_px, crop_px
        height, width, _ = mean.shape
        whole = torch.tensor([[0.0, 0.0, height, width]], dtype=torch.float64)
        straight = torch.zeros(1, dtype=torch.bool, device=mean.device)
        self._mean = resample(mean[None], whole.to(mean.device), straight, crop_px)[0]
        self._crop_px, self._mirror, self._colour_sd, self._colour = (
            crop_px,
            mirror,
            colour_sd,
            colour,
        )

    def boxes(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns height and width (pixels) of a box for each image of `sizes`, float64 (N, 2)."""
        raise NotImplementedError

    def draw(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns top, left, height, width (pixels), mirror and color change, float64 (N, 5 + C)."""
        count, sizes = len(sizes), sizes.double()
        boxes = self.boxes(sizes, generator)
        corners = (sizes - boxes) * torch.rand((count, 2), generator=generator, dtype=torch.float64)
        mirrors = torch.randint(2 if self._mirror else 1, (count, 1), generator=generator)
        channels = len(self._colour)
        shifts = torch.randn((count, channels), generator=generator, dtype=torch.float64)
        return torch.cat([corners, boxes, mirrors, shifts * self._colour_sd], dim=1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns the crops."""
        boxes, mirror = drawn[:, :4].to(images.device), drawn[:, 4].to(images.device) == 1
        crops = resample(images, boxes, mirror, self._crop_px)
        return self.colour(crops, self.shift(drawn).to(images.device))

    def shift(self, drawn: Tensor) -> Tensor:
        """Returns each image's color shift along the principal components, float32 (N, C), on the CPU.

        Loader processes call this, and they cannot use their parent's GPU.
        """
        return drawn[:, 5:].float() @ self._colour.T

    def colour(self, crops: Tensor, shift: Tensor) -> Tensor:
        """Returns crops (N, H', W', C) of any type in the form that `apply` returns.

        The mean is subtracted, and `shift`, float32 (N, C), is added. On a CPU a single thread does it:
        torch's other threads would spin while they wait for work, and take time from the decoders.
        """
        if crops.device.type != "cpu":
            return torch.sub(crops, self._mean).add_(shift[:, None, None]).permute(0, 3, 1, 2)
        out = np.subtract(crops.numpy(), self._mean.numpy(), dtype=np.float32)
        out += shift[:, None, None].numpy()
        return torch.from_numpy(out).permute(0, 3, 1, 2)
