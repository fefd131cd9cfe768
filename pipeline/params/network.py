"""Section `network` of a row: which network, of which family."""

from typing import Annotated, Literal, Self

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
    shortcut: Shortcut

    @model_validator(mode="after")
    def _shortcut_belongs_to_block(self) -> Self:
        if self.block == "plain" and self.shortcut != "none":
            raise ValueError(
                f"shortcut {self.shortcut} on a plain network, which has none: take shortcut none, "
                "or block basic"
            )
        if self.block != "plain" and self.shortcut == "none":
            raise ValueError(
                f"shortcut none with block {self.block}, which is residual: take A, B or C "
                "(section 3.3), or block plain"
            )
        return self


class CifarNetwork(_Network):
    """The family of section 4.2: depth 6n+2 of plain or basic blocks, 16, 32 and 64 channels wide.

    `shortcut` is the option (section 3.3) where dimensions grow; plain networks have "none".
    """

    family: Literal["cifar"]
    block: Literal["plain", "basic"]
    depth: CifarDepth

    @field_validator("block", mode="before")
    @classmethod
    def _has_no_bottleneck(cls, block: object) -> object:
        if block == "bottleneck":
            raise ValueError(
                "the CIFAR family has no bottleneck networks (section 4.2): take block basic, or "
                "family imagenet with depth 50, 101 or 152"
            )
        return block


IMAGENET_DEPTHS = {"plain": (18, 34), "basic": (18, 34), "bottleneck": (50, 101, 152)}


class ImageNetNetwork(_Network):
    """The family of Table 1: plain and basic blocks at 18 and 34 layers, bottlenecks above."""

    family: Literal["imagenet"]
    depth: int

    @model_validator(mode="after")
    def _is_in_the_table(self) -> Self:
        depths = IMAGENET_DEPTHS[self.block]
        if self.depth not in depths:
            raise ValueError(
                f"depth {self.depth} with block {self.block} is not in Table 1 of the paper, which "
                f"has depth {' or '.join(map(str, depths))} for it: change depth or block"
            )
        return self


Network = Annotated[CifarNetwork | ImageNetNetwork, Field(discriminator="family")]
