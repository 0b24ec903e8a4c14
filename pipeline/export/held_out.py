"""The held-out image files on which a bundle's parity with Keras is checked."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets import Images, Labels, PixelArray, PreparedDataset
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.scoring.listing import list_images, unescape

_GOLDEN = 4


@dataclass(frozen=True)
class Arrays:
    """Training images, uint8 [images, height, width, channels], and held-out images with their labels."""

    training: PixelArray
    held_out: Images


@dataclass(frozen=True)
class HeldOut:
    """Image files that were not used in training.

    Attributes:
        folder: The folder that contains them.
        paths: Their paths relative to `folder`, in the order of a prediction table.
        origins: The names to display.
        labels: The true classes, int64 [images]; None if they are not known.
        golden: A few images for the golden vectors; uint8 [images, height, width, channels].
        arrays: The same images as arrays, with training images: what quantization needs. None if there are
            only files.
    """

    folder: Path
    paths: tuple[str, ...]
    origins: tuple[str, ...]
    labels: Labels | None
    golden: Pixels
    arrays: Arrays | None = None

    def files(self) -> list[Path]:
        """The image files, in the order of `paths`."""
        return [self.folder / unescape(path) for path in self.paths]


def from_dataset(dataset: PreparedDataset, spec: ImageSpec, folder: Path) -> HeldOut:
    """The test images of a prepared dataset: links to their original files, or PNG files.

    Args:
        dataset: The dataset; its validation images become the golden vectors.
        spec: The model's input, for which the dataset was prepared.
        folder: An existing folder for the links and PNG files.
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
    """All images below a folder, labelled if every one is in a subfolder named after a class.

    Raises:
        RequestError: There is no readable image, or something named like an image is not a regular file.
    """
    if not folder.is_dir():
        raise RequestError(
            f"images {folder} is not a folder", "a folder of held-out images", "Check the path."
        )
    listed = list(list_images(folder))
    if odd := next((image for image in listed if image.problem is not None), None):
        raise RequestError(
            f"image {odd.path} in {folder}: {odd.problem}", "a regular file", "Remove it from the folder."
        )
    paths = tuple(image.path for image in listed)
    decoded = decode_files((folder / unescape(path) for path in paths), spec)
    readable = (image.pixels for image in decoded if isinstance(image, DecodedImage))
    golden = list(itertools.islice(readable, _GOLDEN))
    if not golden:
        raise RequestError(
            f"folder {folder} contains no readable image",
            "held-out images on which to compare the ONNX file with the model",
            "Choose another folder with `images`.",
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
