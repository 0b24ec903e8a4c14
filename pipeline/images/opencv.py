"""Decoding by OpenCV with its defaults, as in other programs, to measure how much predictions change."""

import numpy as np

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import Pixels, describe_file
from pixelmill.pipeline.images.failures import ImageFailure

_FORMATS = frozenset(("JPEG", "PNG"))
_MAX_PIXELS = 50_000_000


def decode_with_opencv(data: bytes, spec: ImageSpec) -> Pixels | None:
    """Decode an image file with OpenCV and resize it with its bilinear filter, which does not antialias.

    Args:
        data: The whole file.
        spec: The shape of the tensor.

    Returns:
        uint8 [height, width, channels]; None for a file that is no JPEG or PNG, is damaged, or has more than
        50 million pixels.
    """
    import cv2

    try:
        facts = describe_file(data)
    except ImageFailure:
        return None
    if facts.format not in _FORMATS or facts.width * facts.height > _MAX_PIXELS:
        return None
    is_grey = spec.channels == 1
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if is_grey else cv2.IMREAD_COLOR_RGB
        )
    except cv2.error:
        return None
    if image is None:
        return None
    return _fit(image.astype(np.uint8), spec).reshape(spec.height, spec.width, spec.channels)


def _fit(image: Pixels, spec: ImageSpec) -> Pixels:
    import cv2

    height, width = image.shape[:2]
    if spec.resize == "stretch":
        return np.asarray(cv2.resize(image, (spec.width, spec.height)), np.uint8)
    scales = spec.width / width, spec.height / height
    scale = max(scales) if spec.resize == "crop" else min(scales)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = np.asarray(cv2.resize(image, size), np.uint8)
    fitted = np.full((spec.height, spec.width, *image.shape[2:]), spec.background, np.uint8)
    # One of the two is larger than the tensor when it is cropped, and smaller when it is padded.
    left, top = (spec.width - size[0]) // 2, (spec.height - size[1]) // 2
    part = resized[max(0, -top) :, max(0, -left) :][: spec.height, : spec.width]
    rows, columns = part.shape[:2]
    fitted[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns] = part
    return fitted
