"""Golden vectors: a few image files with the input tensor and the probabilities expected for each."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from pixelmill.pipeline.artifacts import sha256_of, write_array, write_json
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import ImageForm, encode_as
from pixelmill.pipeline.images import Pixels, decode
from pixelmill.pipeline.inference import Probabilities

GOLDEN_FOLDER = "golden"
_INDEX, _TENSORS, _PROBABILITIES = "golden.json", "tensors.npy", "probabilities.npy"


class _Image(BaseModel):
    # A plain file name, so that the index cannot refer to files outside its folder.
    file: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]+$", max_length=255)]


class _Index(BaseModel):
    images: Annotated[list[_Image], Field(max_length=1000)]


@dataclass(frozen=True)
class GoldenVectors:
    """The contents of a bundle's `golden/`.

    Attributes:
        files: The image files.
        tensors: The expected input tensors; uint8 [images, height, width, channels].
        probabilities: Keras's predictions; float32 [images, classes].
    """

    files: tuple[Path, ...]
    tensors: Pixels
    probabilities: Probabilities


def write_golden(
    bundle: Path, images: Pixels, spec: ImageSpec, predict: Callable[[Pixels], Probabilities]
) -> None:
    """Write held-out images in every form that preprocessing handles, with their tensors and predictions.

    Args:
        bundle: The folder in which `golden/` is created.
        images: uint8 [images, height, width, channels], at least one; the forms use them in turn.
        spec: The model's input.
        predict: From uint8 [images, height, width, channels] to probabilities [images, classes].
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
    write_array(folder / _PROBABILITIES, predict(np.stack(tensors)).astype(np.float32))
    write_json(
        folder / _INDEX,
        {
            "images": index,
            "tensors": {"file": _TENSORS, "dtype": "uint8", "order": "as images"},
            "probabilities": {"file": _PROBABILITIES, "dtype": "float32", "order": "as images"},
        },
    )


def read_golden(bundle: Path, read: Callable[[str], bytes] | None = None) -> GoldenVectors:
    """Read the golden vectors of a bundle.

    Args:
        bundle: The bundle's folder.
        read: Returns the bytes of a file by its path relative to `bundle`; reads the folder when None.

    Raises:
        RequestError: There are none, or they are malformed.
    """
    folder = bundle / GOLDEN_FOLDER
    if not (folder / _INDEX).is_file():
        raise RequestError(
            f"{bundle} has no {GOLDEN_FOLDER}/{_INDEX}",
            "a bundle with golden vectors",
            "An earlier release exported it: retrain, or export the model again.",
        )
    try:
        return _parse(folder, read or (lambda name: (bundle / name).read_bytes()))
    except ValueError as error:
        words = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RequestError(
            f"{folder} contains malformed golden vectors: {words}",
            "one or more image files, each with a tensor and a row of probabilities",
            "Get the bundle from its source again, or export the model again.",
        ) from error


def _parse(folder: Path, read: Callable[[str], bytes]) -> GoldenVectors:
    """Golden vectors from the bytes of their files; raises ValueError if these are inconsistent."""
    index = _Index.model_validate_json(read(f"{GOLDEN_FOLDER}/{_INDEX}"))
    tensors = parse_array(read(f"{GOLDEN_FOLDER}/{_TENSORS}"), np.dtype(np.uint8), 4)
    probabilities = parse_array(read(f"{GOLDEN_FOLDER}/{_PROBABILITIES}"), np.dtype(np.float32), 2)
    counts = (len(index.images), len(tensors), len(probabilities))
    if len(set(counts)) > 1 or not index.images:
        raise ValueError("{} images, {} tensors and {} rows of probabilities".format(*counts))
    return GoldenVectors(tuple(folder / image.file for image in index.images), tensors, probabilities)


def parse_array(content: bytes, dtype: "np.dtype[Any]", dimensions: int) -> "np.ndarray[Any, Any]":
    """Parse a `.npy` file without allocating more memory than its own size, whatever its header states.

    Raises:
        ValueError: It is not a `.npy` file, or its dtype, number of dimensions or size is wrong.
    """
    buffer = io.BytesIO(content)
    version = np.lib.format.read_magic(buffer)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"unsupported .npy version {version}")
    try:
        shape, is_fortran, found = read_header(buffer)
    except (SyntaxError, TypeError, RecursionError, TokenError) as error:
        raise ValueError(f"invalid .npy header ({error})") from error
    is_size = all(type(side) is int and side > 0 for side in shape)
    if found != dtype or len(shape) != dimensions or is_fortran or not is_size:
        raise ValueError(f"an array {found} {list(shape)} instead of {dtype} with {dimensions} dimensions")
    size = math.prod(shape) * dtype.itemsize
    if size != len(content) - buffer.tell():
        raise ValueError(f"{len(content) - buffer.tell():,} bytes for an array {dtype} {list(shape)}")
    return np.frombuffer(content, dtype, offset=buffer.tell()).reshape(shape).copy()
