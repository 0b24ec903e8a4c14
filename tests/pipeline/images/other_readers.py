"""Independent readers of image files, for comparison."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def read_with_opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> npt.NDArray[Any]:
    """The samples, [height, width] or [height, width, blue, green, red and maybe alpha]."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert read is not None
    return np.asarray(read)
