"""The IDX file format of MNIST and Fashion-MNIST."""

import struct

import numpy as np

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels


def read_idx(content: bytes) -> Pixels:
    """Read an IDX file of unsigned bytes: two zeros, type 8, rank, the sizes as big-endian uint32, the data.

    Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".

    Raises:
        WorkError: The bytes are not such a file.
    """
    rank = content[3] if len(content) > 3 else 0
    header = 4 + 4 * rank
    if content[:3] != b"\x00\x00\x08" or not rank or len(content) < header:
        raise WorkError(
            f"{len(content)} bytes starting with {content[:4]!r}",
            "an IDX file of unsigned bytes",
            "Remove the file from the cache and run again.",
        )
    shape = struct.unpack(f">{rank}I", content[4:header])
    data = np.frombuffer(content, np.uint8, offset=header)
    if data.size != int(np.prod(shape)):
        raise WorkError(
            f"an IDX file of {data.size} values",
            f"{'x'.join(map(str, shape))} values, as stated in its header",
            "Remove the file from the cache and run again.",
        )
    return data.reshape(shape)


def write_idx(array: Pixels) -> bytes:
    """The inverse of `read_idx`."""
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()
