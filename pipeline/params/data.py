"""Section `data`: which images, and how they are split."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pipeline.params.section import Percent, Section, Sha256

# the download page gives only an md5; Keras's loader and others list this sha256
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


class _Data(Section):
    """What all kinds of data have in common.

    `duplicates_pct` is the largest share of validation or test images, in percent, that may have the
    same content as training images; above it, `prepare` stops. `TITLE` is the data's name in the report.
    """

    TITLE: ClassVar[str]
    val_images: PositiveInt
    split_seed: NonNegativeInt
    duplicates_pct: Percent

    @property
    def side_px(self) -> int | None:
        """The side of the prepared images; None for photographs of any size."""
        return None

    @property
    def is_official(self) -> bool:
        """Tells whether these are the paper's CIFAR-10 or ImageNet, bit for bit."""
        return False


class DigitsData(_Data):
    """The 1,797 handwritten digits that scikit-learn ships (UCI), 8x8, resized; no download.

    The split is random over all images and so mixes writers: a nearest-neighbor classifier on raw pixels
    errs on 0.8 % of such test images, but on 4.3 % if the test images are by held-out writers.
    """

    TITLE = (
        "handwritten digits (UCI, scikit-learn; test images by the writers of the training images)"
    )
    kind: Literal["digits"]
    image_size_px: PositiveInt
    test_images: PositiveInt

    @property
    def side_px(self) -> int:
        """The side of the prepared images."""
        return self.image_size_px


class Cifar10Data(_Data):
    """CIFAR-10 in its official archive (python version); val is cut from the training part."""

    TITLE = "CIFAR-10"
    kind: Literal["cifar10"]
    archive: str
    sha256: Sha256

    @property
    def side_px(self) -> int:
        """The side of the images."""
        return 32

    @property
    def is_official(self) -> bool:
        """Tells whether it is the official archive."""
        return self.sha256 == CIFAR10_SHA256


class _Folders(Section):
    """Images in `<split>/<class>/`: an archive with its sha256, or a location ending in / without one.

    Such a location begins with `PLACE`, and errors call it `PLACE_NAME`.
    """

    PLACE: ClassVar[str]
    PLACE_NAME: ClassVar[str]
    archive: str
    sha256: Sha256 | None
    train_split: str
    test_split: str

    @model_validator(mode="after")
    def _test_is_not_train(self) -> Self:
        if self.train_split == self.test_split:
            raise ValueError(
                f"train_split and test_split are both {self.train_split}: the test images must be "
                "different ones; name two folders"
            )
        return self

    @model_validator(mode="after")
    def _archive_has_checksum(self) -> Self:
        place = self.archive.startswith(self.PLACE) and self.archive.endswith("/")
        if place != (self.sha256 is None):
            raise ValueError(
                f"archive {self.archive}: an archive needs its sha256 (`sha256sum FILE`), "
                f"and {self.PLACE_NAME} ending in / takes `sha256: null`"
            )
        return self


class ImageFolderData(_Data, _Folders):
    """Images in `<split>/<class>/`, in an archive or under an s3:// prefix.

    `archive` is a file name that the mirrors know, or an http(s):// or s3:// address of one, with
    its sha256; or an s3:// prefix that ends in `/`, with `sha256: null`.
    """

    PLACE, PLACE_NAME = "s3://", "an s3:// prefix"
    TITLE = "images in folders"
    kind: Literal["imagefolder"]
    image_size_px: PositiveInt

    @property
    def side_px(self) -> int:
        """The side of the prepared images."""
        return self.image_size_px


class _Sharded(_Data):
    """Photographs of any size, packed into shards on S3 and read from there while training.

    `shorter_side_px` limits the shorter side (an image above the limit is resized and written as JPEG of
    `jpeg_quality`); null for both keeps every file as it is. A shard holds files of about `shard_mb`
    million bytes, counted before resizing. Training shuffles the shards, and then the images of
    `shuffle_shards` shards at a time. `undecodable_images` is how many images that do not decode may be
    left out.
    """

    shorter_side_px: PositiveInt | None
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] | None
    shard_mb: Annotated[float, Field(gt=0, le=1000)]
    shuffle_shards: PositiveInt
    undecodable_images: NonNegativeInt

    @model_validator(mode="after")
    def _quality_belongs_to_size(self) -> Self:
        if (self.shorter_side_px is None) != (self.jpeg_quality is None):
            raise ValueError(
                f"shorter_side_px is {self.shorter_side_px} and jpeg_quality {self.jpeg_quality}: "
                "give both, or null for both to keep the files as they are"
            )
        return self


class ImageNetData(_Sharded):
    """ImageNet (ILSVRC2012) from its three official archives, which the mirrors must have.

    Its validation part is the test set here; val is cut from its training part.
    """

    TITLE = "ImageNet (ILSVRC2012, its validation images as test)"
    kind: Literal["imagenet"]

    @property
    def is_official(self) -> bool:
        """Tells whether every image is as it was published."""
        return self.shorter_side_px is None and self.undecodable_images == 0


class PhotosData(_Folders, _Sharded):
    """Photographs in ImageNet's layout, `<split>/<class>/<image>`.

    `archive` is a tar or zip that the mirrors know, or an http(s):// or s3:// address of one, with
    its sha256; or, ending in `/`, a folder that a mirror has or an s3:// prefix, with `sha256: null`.
    """

    PLACE, PLACE_NAME = "", "a folder or prefix"
    TITLE = "photographs in folders"
    kind: Literal["photos"]


Small = DigitsData | Cifar10Data | ImageFolderData
Sharded = ImageNetData | PhotosData
Data = Annotated[
    DigitsData | Cifar10Data | ImageFolderData | ImageNetData | PhotosData,
    Field(discriminator="kind"),
]
