"""The IDX file format of MNIST and Fashion-MNIST.

Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

import struct

import numpy as np

from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels

_REMEDY = "Remove the file from the cache and run again."


def read_idx(content: bytes, name: str = "the file") -> Pixels:
    """Read an IDX file of unsigned bytes: two zeros, type 8, rank, the sizes as big-endian uint32, the data.

    Args:
        content: The whole file.
        name: What errors call it.

    Raises:
        WorkError: The magic number is another, or the data is shorter or longer than the header says.
    """
    rank = content[3] if len(content) > 3 else 0
    header = 4 + 4 * rank
    if content[:3] != b"\x00\x00\x08" or not rank:
        raise WorkError(
            f"{name} has {len(content)} bytes starting with {content[:4]!r}",
            "the magic number of an IDX file of unsigned bytes (two zeros, 8, the number of dimensions)",
            _REMEDY,
        )
    if len(content) < header:
        raise WorkError(
            f"{name} has {len(content)} bytes", f"an IDX file with a header of {header} bytes", _REMEDY
        )
    shape = struct.unpack(f">{rank}I", content[4:header])
    count = 1
    for size in shape:
        count *= size
    if len(content) - header != count:
        raise WorkError(
            f"{name} is {'truncated' if len(content) - header < count else 'too long'}: an IDX file of "
            f"{len(content) - header} values",
            f"{'x'.join(map(str, shape))} values, as stated in its header",
            _REMEDY,
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def join_images(
    images: tuple[str, Pixels], labels: tuple[str, Pixels], side: int, class_count: int
) -> Images:
    """Images with the labels of another file.

    Args:
        images: The name of a file, and its array, uint8 [images, side, side].
        labels: The name of a file, and its array, uint8 [images], below `class_count`.
        side: Height and width in pixels.
        class_count: The number of classes.

    Returns:
        uint8 [images, side, side, 1] and int64 [images].

    Raises:
        WorkError: The shapes are others, the two files have different counts, or a label is too high.
    """
    (name, pixels), (labels_name, known) = images, labels
    if pixels.ndim != 3 or pixels.shape[1:] != (side, side):
        shape = "x".join(map(str, pixels.shape))
        raise WorkError(f"{name} has values of shape {shape}", f"images of {side}x{side} pixels", _REMEDY)
    if known.ndim != 1 or len(known) != len(pixels):
        raise WorkError(
            f"{name} has {len(pixels)} images and {labels_name} {len(known)} labels",
            "as many labels as images",
            _REMEDY,
        )
    if len(known) and known.max() >= class_count:
        raise WorkError(f"{labels_name} has a label {known.max()}", f"labels below {class_count}", _REMEDY)
    return Images(pixels[..., np.newaxis], known.astype(np.int64))


def write_idx(array: Pixels) -> bytes:
    """The inverse of `read_idx`."""
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()
