"""RandAugment and TrivialAugment: random operations from one list, for each image.

Cubuk et al., 2020, arXiv:1909.13719, and Müller and Hutter, 2021, arXiv:2103.10158. The operations and the
strongest magnitudes are those of torchvision, with these differences: images are sheared around their centre,
edge pixels are replicated, and a shift is a share of the side, where TrivialAugment always shifts by up to
32 pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

_VALUES = np.arange(256, dtype=np.float64)
# The filter of `ImageFilter.SMOOTH` of Pillow.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float64) / 13


@dataclass(frozen=True)
class Operation:
    """An operation on one image, uint8 [height, width, channels].

    Attributes:
        apply: From the image and a magnitude to the new image.
        strongest: The strongest magnitude of each policy; 0 for operations without one.
        is_signed: Whether the magnitude is negative half of the time.
        needs_color: Whether it does nothing to an image with one channel.
    """

    apply: Callable[[Pixels, float], Pixels]
    strongest: dict[str, float]
    is_signed: bool = False
    needs_color: bool = False


def apply_policy(pixels: Pixels, spec: AugmentationSpec, rng: np.random.Generator) -> Pixels:
    """Apply random operations to each image of a batch, uint8 [images, height, width, channels]."""
    each, default, is_random = _POLICIES[spec.policy]
    strength = default if spec.policy_strength is None else spec.policy_strength
    allowed = [one for one in OPERATIONS.values() if pixels.shape[-1] == 3 or not one.needs_color]
    shape = (len(pixels), each)
    chosen = rng.integers(0, len(allowed), shape)
    shares = rng.uniform(0, strength, shape) if is_random else np.full(shape, strength)
    signs = rng.choice((-1, 1), shape)
    changed = np.empty_like(pixels, order="C")
    for index in range(len(pixels)):
        image = np.ascontiguousarray(pixels[index])
        for operation, share, sign in zip(chosen[index], shares[index], signs[index], strict=True):
            one = allowed[operation]
            magnitude = share * one.strongest[spec.policy] * (sign if one.is_signed else 1)
            image = one.apply(image, float(magnitude)).reshape(image.shape)
        changed[index] = image
    return changed


def _affine(matrix: npt.NDArray[np.float64], image: Pixels) -> Pixels:
    """Sample an image under a matrix from (x, y) in the output to (x, y) in the input, around the centre."""
    import cv2

    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    constant = matrix[:, 2] + centre - matrix[:, :2] @ centre
    sampled: npt.NDArray[Any] = cv2.warpAffine(
        image,
        np.column_stack([matrix[:, :2], constant]),
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled


def _shear(across: float, down: float) -> npt.NDArray[np.float64]:
    return np.array([[1, across, 0], [down, 1, 0]])


def _shift(image: Pixels, across: float, down: float) -> Pixels:
    # By whole pixels, so that the image stays sharp.
    height, width = image.shape[:2]
    return _affine(np.array([[1, 0, np.rint(across * width)], [0, 1, np.rint(down * height)]]), image)


def _rotate(image: Pixels, degrees: float) -> Pixels:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return _affine(np.array([[cosine, -sine, 0], [sine, cosine, 0]]), image)


def _blend(image: Pixels, other: Pixels, share: float) -> Pixels:
    """Share * image + (1 - share) * other, rounded and clipped."""
    import cv2

    blended: npt.NDArray[Any] = cv2.addWeighted(image, share, other, 1 - share, 0)
    return blended


def _look_up(image: Pixels, values: npt.NDArray[np.float64]) -> Pixels:
    """Replace each value by that in a table, rounded and clipped: float64 [256], or [256, channels]."""
    import cv2

    table = np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(1, 256, -1)
    replaced: npt.NDArray[Any] = cv2.LUT(image, table)
    return replaced


def _grey(image: Pixels) -> Pixels:
    """Grey values by ITU-R BT.601, as Pillow computes them: uint8 [height, width, 1]."""
    import cv2

    if image.shape[-1] == 1:
        return image
    grey: npt.NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey[..., None]


def _change_brightness(image: Pixels, change: float) -> Pixels:
    return _look_up(image, _VALUES * (1 + change))


def _change_contrast(image: Pixels, change: float) -> Pixels:
    import cv2

    return _look_up(image, _VALUES * (1 + change) - change * cv2.mean(_grey(image))[0])


def _change_saturation(image: Pixels, change: float) -> Pixels:
    import cv2

    grey: npt.NDArray[Any] = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return _blend(image, grey, 1 + change)


def _change_sharpness(image: Pixels, change: float) -> Pixels:
    import cv2

    smooth: npt.NDArray[Any] = cv2.filter2D(image, -1, _SMOOTH).reshape(image.shape)
    changed = _blend(image, smooth, 1 + change).reshape(image.shape)
    # At the edges the filter lacks neighbours: Pillow leaves them as they are.
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        changed[edge] = image[edge]
    return changed


def _posterize(image: Pixels, dropped: float) -> Pixels:
    """Drop the lowest bits of every value."""
    return image & np.uint8(256 - 2 ** round(dropped))


def _solarize(image: Pixels, share: float) -> Pixels:
    """Invert values from a threshold on, which falls from 256 to 0."""
    return _look_up(image, np.where(256 * (1 - share) <= _VALUES, 255 - _VALUES, _VALUES))


def _autocontrast(image: Pixels, _: float) -> Pixels:
    """Stretch each channel from its darkest and brightest value to 0 and 255, as Pillow does."""
    return _look_up(image, np.stack([_stretched(one) for one in _histograms(image)], axis=1))


def _stretched(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    low, high = np.flatnonzero(counts)[[0, -1]].tolist()
    if low == high:
        return _VALUES
    stretched: npt.NDArray[np.float64] = np.floor((_VALUES - low) * 255 / (high - low) + 1e-9)
    return stretched


def _equalize(image: Pixels, _: float) -> Pixels:
    """Make the histogram of each channel flat, as Pillow does."""
    return _look_up(image, np.stack([_equalized(one) for one in _histograms(image)], axis=1))


def _equalized(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if not step:
        return _VALUES
    before = np.cumsum(counts) - counts
    flat: npt.NDArray[np.float64] = ((before + step // 2) // step).astype(np.float64)
    return flat


def _histograms(image: Pixels) -> list[npt.NDArray[np.int64]]:
    """The number of pixels with each value, int64 [256], for each channel."""
    import cv2

    found = (cv2.calcHist([image], [at], None, [256], [0, 256]) for at in range(image.shape[-1]))
    return [counts.ravel().astype(np.int64) for counts in found]


def _both(randaugment: float, trivialaugment: float) -> dict[str, float]:
    return {"randaugment": randaugment, "trivialaugment": trivialaugment}


OPERATIONS: dict[str, Operation] = {
    "identity": Operation(lambda image, _: image, _both(0, 0)),
    "shear_x": Operation(lambda image, by: _affine(_shear(by, 0), image), _both(0.3, 0.99), True),
    "shear_y": Operation(lambda image, by: _affine(_shear(0, by), image), _both(0.3, 0.99), True),
    "shift_x": Operation(lambda image, by: _shift(image, by, 0), _both(0.45, 0.45), True),
    "shift_y": Operation(lambda image, by: _shift(image, 0, by), _both(0.45, 0.45), True),
    "rotate": Operation(_rotate, _both(30, 135), True),
    "brightness": Operation(_change_brightness, _both(0.9, 0.99), True),
    "saturation": Operation(_change_saturation, _both(0.9, 0.99), True, needs_color=True),
    "contrast": Operation(_change_contrast, _both(0.9, 0.99), True),
    "sharpness": Operation(_change_sharpness, _both(0.9, 0.99), True),
    "posterize": Operation(_posterize, _both(4, 6)),
    "solarize": Operation(_solarize, _both(1, 1)),
    "autocontrast": Operation(_autocontrast, _both(0, 0)),
    "equalize": Operation(_equalize, _both(0, 0)),
}
"""By name."""
# Operations for each image, strength by default, and whether the strength is drawn from zero up to it.
_POLICIES: dict[str, tuple[int, float, bool]] = {
    "randaugment": (2, 0.3, False),
    "trivialaugment": (1, 1.0, True),
}
