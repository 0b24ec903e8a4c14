"""Golden vectors: a few image files, the tensor each must become, and the probabilities each must give."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from pipeline.artifacts import read_json, sha256_of, write_array, write_json
from pipeline.config import ImageSpec
from pipeline.errors import RequestError
from pipeline.image_encoding import ImageForm, encode_as
from pipeline.images import Pixels, decode
from pipeline.inference import Probabilities

GOLDEN_FOLDER = "golden"
_INDEX, _TENSORS, _PROBABILITIES = "golden.json", "tensors.npy", "probabilities.npy"


@dataclass(frozen=True)
class GoldenVectors:
    """What a bundle's `golden/` holds.

    Attributes:
        files: The image files.
        tensors: What each must become; uint8 [images, height, width, channels].
        probabilities: What Keras answered to each; float32 [images, classes].
    """

    files: tuple[Path, ...]
    tensors: Pixels
    probabilities: Probabilities


def write_golden(
    bundle: Path, images: Pixels, spec: ImageSpec, answer: Callable[[Pixels], Probabilities]
) -> None:
    """Write held-out images in every form that preprocessing has to undo, and what becomes of them.

    Args:
        bundle: The folder that gets `golden/`.
        images: uint8 [images, height, width, channels], one or more; each form takes the next.
        spec: The tensor an image file must become.
        answer: The probabilities for some tensors.
    """
    folder = bundle / GOLDEN_FOLDER
    folder.mkdir()
    index, tensors = [], []
    for number, form in enumerate(get_args(ImageForm)):
        extension, content = encode_as(form, np.asarray(images[number % len(images)]))
        name = f"{form}{extension}"
        (folder / name).write_bytes(content)
        tensors.append(decode(content, spec).pixels)
        index.append({"file": name, "sha256": sha256_of(folder / name)})
    write_array(folder / _TENSORS, np.stack(tensors))
    write_array(folder / _PROBABILITIES, answer(np.stack(tensors)).astype(np.float32))
    write_json(
        folder / _INDEX,
        {
            "images": index,
            "tensors": {"file": _TENSORS, "dtype": "uint8", "order": "as images"},
            "probabilities": {"file": _PROBABILITIES, "dtype": "float32", "order": "as images"},
        },
    )


def read_golden(bundle: Path) -> GoldenVectors:
    """The golden vectors of a bundle.

    Raises:
        RequestError: It has none.
    """
    folder = bundle / GOLDEN_FOLDER
    if not (folder / _INDEX).is_file():
        raise RequestError(
            f"{bundle} has no {GOLDEN_FOLDER}/{_INDEX}",
            "a bundle with golden vectors",
            "It is of an earlier release: retrain or export the model again.",
        )
    names = [image["file"] for image in read_json(folder / _INDEX)["images"]]
    return GoldenVectors(
        tuple(folder / name for name in names),
        np.load(folder / _TENSORS, allow_pickle=False),
        np.load(folder / _PROBABILITIES, allow_pickle=False),
    )
