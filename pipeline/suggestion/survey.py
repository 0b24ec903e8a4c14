"""Looking at the images of a folder: how many, how large, in colour or not."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixelmill.pipeline.config import FolderSource, ImageSpec
from pixelmill.pipeline.datasets.catalogue import ListedImage, Reader
from pixelmill.pipeline.datasets.folders import list_folder
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import ImageFailure, decode, describe_file
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.suggestion import FolderFacts

_SAMPLE = 400
_SMALL = ImageSpec(height=32, width=32, channels=3)
# JPEG stores colours with less precision, so that grey pixels may differ by a few levels.
_GREY_WITHIN = 12
_GREY_MODES = ("1", "L", "LA", "I;16")


def survey_folder(path: str) -> FolderFacts:
    """Count the images of a folder, and read the size and colours of up to 400 drawn at random.

    Args:
        path: A folder with one subfolder per class, or an address of one.

    Raises:
        RequestError: It is not such a folder, or none of the images drawn can be read.
    """
    listing = list_folder(FolderSource(source="folder", path=path), Path())
    counts: Counter[str] = Counter()
    drawn = _draw(listing.images, counts)
    sizes, grey, unreadable = [], 0, 0
    with progress("look at images", len(drawn), "images") as advance:
        for image in drawn:
            try:
                size, is_grey = _look_at(listing.reader, image.place)
            except ImageFailure:
                unreadable += 1
            else:
                sizes.append(size)
                grey += is_grey
            advance(1, "")
    if not sizes:
        raise RequestError(
            f"none of {len(drawn)} images drawn from {printable(path)} can be read",
            "image files",
            f"See why with `pixelmill audit {printable(path)}`.",
        )
    width, height = np.array(sizes, np.float64).T
    ratios = width / height
    return FolderFacts(
        path=path,
        images=counts.total(),
        classes=len(counts),
        smallest=min(counts.values()),
        largest=max(counts.values()),
        sampled=len(drawn),
        width=int(np.median(width)),
        height=int(np.median(height)),
        shortest=int(np.quantile(np.minimum(width, height), 0.1)),
        narrowest=float(np.quantile(ratios, 0.1)),
        widest=float(np.quantile(ratios, 0.9)),
        grey=grey / len(sizes),
        unreadable=unreadable,
    )


def _draw(images: Iterable[ListedImage], counts: Counter[str]) -> list[ListedImage]:
    """A uniform sample of images in one pass (reservoir sampling), while counting those of each class."""
    rng = np.random.default_rng(0)
    drawn: list[ListedImage] = []
    for number, image in enumerate(images):
        counts[image.class_name] += 1
        if len(drawn) < _SAMPLE:
            drawn.append(image)
        elif (place := int(rng.integers(number + 1))) < _SAMPLE:
            drawn[place] = image
    return drawn


def _look_at(reader: Reader, place: str) -> tuple[tuple[int, int], bool]:
    """The displayed width and height of an image, and whether it has no colour."""
    content = reader.read(place)
    if not isinstance(content, bytes):
        raise TypeError(f"{place} is no file")
    facts = describe_file(content)
    if facts.mode in _GREY_MODES:
        return facts.displayed_size, True
    pixels = decode(content, _SMALL).pixels.astype(np.int16)
    return facts.displayed_size, bool(np.ptp(pixels, axis=-1).max() <= _GREY_WITHIN)
