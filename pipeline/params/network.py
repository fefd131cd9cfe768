"""Section `network` of a row: which network, of which family."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.params.section import Section, Shortcut


def _cifar_depth(value: int) -> int:
    if value < 8 or (value - 2) % 6:
        below = max(8, value - (value - 2) % 6)
        raise ValueError(
            f"found {value}, wanted 6n+2 (section 4.2 of the paper): take {below} or {below + 6}"
        )
    return value


CifarDepth = Annotated[int, AfterValidator(_cifar_depth)]


class _Network(Section):
    block: Literal["plain", "basic", "bottleneck"]
    depth: int
    shortcut: Shortcut

    @property
    def title(self) -> str:
        """The usual name of the network, such as resnet-56."""
        return f"{'plain' if self.block == 'plain' else 'resnet'}-{self.depth}"

    @property
    def kind(self) -> str:
        """The word for the network in claims: plain or residual."""
        return "plain" if self.block == "plain" else "residual"

    @model_validator(mode="after")
    def _shortcut_belongs_to_block(self) -> Self:
        if self.block == "plain" and self.shortcut != "none":
            raise ValueError(
                f"shortcut {self.shortcut} on a plain network, which has none: use shortcut none, "
                "or block basic"
            )
        if self.block != "plain" and self.shortcut == "none":
            raise ValueError(
                f"shortcut none with block {self.block}, which is residual: use A, B or C "
                "(section 3.3), or block plain"
            )
        return self


# `kept_per_pixel` of each family: elements that a layer keeps for its backward pass per pixel of the
# input, averaged over a network's stages; each is kept about three times (convolution, normalization,
# ReLU) as float32


class CifarNetwork(_Network):
    """The family of section 4.2: depth 6n+2 of plain or basic blocks, 16, 32 and 64 channels wide.

    `shortcut` is the option (section 3.3) where dimensions grow; plain networks have "none".
    """

    kept_per_pixel: ClassVar[float] = 9.3
    family: Literal["cifar"]
    block: Literal["plain", "basic"]
    depth: CifarDepth

    @field_validator("block", mode="before")
    @classmethod
    def _has_no_bottleneck(cls, block: object) -> object:
        if block == "bottleneck":
            raise ValueError(
                "the CIFAR family has no bottleneck networks (section 4.2): use block basic, or "
                "family imagenet with depth 50, 101 or 152"
            )
        return block


IMAGENET_DEPTHS = {"plain": (18, 34), "basic": (18, 34), "bottleneck": (50, 101, 152)}


class ImageNetNetwork(_Network):
    """The family of Table 1: plain and basic blocks at 18 and 34 layers, bottlenecks above."""

    kept_per_pixel: ClassVar[float] = 3.8
    family: Literal["imagenet"]

    @model_validator(mode="after")
    def _is_in_the_table(self) -> Self:
        depths = IMAGENET_DEPTHS[self.block]
        if self.depth not in depths:
            raise ValueError(
                f"depth {self.depth} with block {self.block} is not in Table 1 of the paper, which "
                f"has depth {' or '.join(map(str, depths))} for it: change depth or block"
            )
        return self


class TorchvisionNetwork(Section):
    """A torchvision classifier by its name (`resnext50_32x4d`); `arguments` go to its builder.

    Its weights are initialized as torchvision does. The paper makes no claims about it.
    """

    family: Literal["torchvision"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    arguments: dict[str, bool | int | float | str]

    kept_per_pixel: ClassVar[float] = 3.8
    kind: ClassVar[str] = "other"
    depth: ClassVar[int | None] = None  # only its name tells
    shortcut: ClassVar[str] = "none"

    @property
    def title(self) -> str:
        """Torchvision's name of the network."""
        return self.name

    @field_validator("arguments")
    @classmethod
    def _leaves_to_the_study(
        cls, arguments: dict[str, bool | int | float | str]
    ) -> dict[str, bool | int | float | str]:
        for name in ("weights", "num_classes", "progress"):
            if name in arguments:
                raise ValueError(f"{name} is set by the study: remove it")
        return arguments


Network = Annotated[
    CifarNetwork | ImageNetNetwork | TorchvisionNetwork, Field(discriminator="family")
]
