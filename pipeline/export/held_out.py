"""The held-out images that decide over a bundle, as files."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets import Images, Labels, PreparedDataset
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.scoring.listing import list_images, unescape

_GOLDEN = 4


@dataclass(frozen=True)
class Arrays:
    """Images as uint8 [images, height, width, channels], the held-out ones with their labels."""

    training: Pixels
    held_out: Images


@dataclass(frozen=True)
class HeldOut:
    """Image files that the model never saw in training.

    Attributes:
        folder: Where they are.
        paths: Relative to it, as a prediction table of the folder has them, in its order.
        origins: What to call each for people.
        labels: The true class of each; None where they are not known.
        golden: A few images that become golden vectors; uint8 [images, height, width, channels].
        arrays: The same images as arrays, where they are at hand as such, and training images beside them:
            what it takes to make a model of fewer bits and to judge it.
    """

    folder: Path
    paths: tuple[str, ...]
    origins: tuple[str, ...]
    labels: Labels | None
    golden: Pixels
    arrays: Arrays | None = None

    def files(self) -> list[Path]:
        """The files, in the order of the table."""
        return [self.folder / unescape(path) for path in self.paths]


def from_dataset(dataset: PreparedDataset, spec: ImageSpec, folder: Path) -> HeldOut:
    """The test images of a prepared dataset, each the file it came from, or else a PNG file.

    Args:
        dataset: Its validation images become the golden vectors.
        spec: What the dataset was prepared for.
        folder: Gets the files, and links to those that are at hand; exists.
    """
    test, origins = dataset.split("test"), dataset.test_origins()
    originals = [Path(unescape(origin)) for origin in origins]
    is_file = [original.is_file() for original in originals]
    decoded = decode_files(itertools.compress(originals, is_file), spec)
    paths = []
    for index, (tensor, original) in enumerate(zip(test.pixels, originals, strict=True)):
        image = next(decoded) if is_file[index] else None
        if isinstance(image, DecodedImage) and np.array_equal(image.pixels, tensor):
            paths.append(f"{index:08d}{original.suffix}")
            (folder / paths[-1]).symlink_to(original.resolve())
        else:
            paths.append(f"{index:08d}.png")
            (folder / paths[-1]).write_bytes(encode_png(tensor))
    return HeldOut(
        folder=folder,
        paths=tuple(paths),
        origins=tuple(origins),
        labels=test.labels,
        golden=dataset.split("validation").pixels[:_GOLDEN],
        arrays=Arrays(dataset.split("train").pixels, test),
    )


def from_folder(folder: Path, class_names: Sequence[str], spec: ImageSpec) -> HeldOut:
    """All images below a folder. Where each lies in a folder named after its class, that is its label.

    Raises:
        RequestError: There are none that can be read, or what has an image's name is no file.
    """
    if not folder.is_dir():
        raise RequestError(f"images {folder} is no folder", "a folder of held-out images", "Check the path.")
    listed = list(list_images(folder))
    if odd := next((image for image in listed if image.problem is not None), None):
        raise RequestError(
            f"image {odd.path} in {folder}: {odd.problem}", "a regular file", "Take it out of the folder."
        )
    paths = tuple(image.path for image in listed)
    decoded = decode_files((folder / unescape(path) for path in paths), spec)
    readable = (image.pixels for image in decoded if isinstance(image, DecodedImage))
    golden = list(itertools.islice(readable, _GOLDEN))
    if not golden:
        raise RequestError(
            f"folder {folder} holds no image that can be read",
            "held-out images, on which the ONNX file has to answer as the model",
            "Name another with `images`.",
        )
    known = {name: index for index, name in enumerate(class_names)}
    labels = [known.get(path.partition("/")[0], -1) for path in paths]
    is_labelled = min(labels) >= 0
    return HeldOut(
        folder=folder,
        paths=paths,
        origins=paths,
        labels=np.array(labels, np.int64) if is_labelled else None,
        golden=np.stack(golden),
    )
