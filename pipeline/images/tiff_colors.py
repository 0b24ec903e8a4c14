"""Interpretation of the samples of a TIFF page: polarity, palette, color space, alpha."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelmill.pipeline.images.failures import corrupt, unsupported
from pixelmill.pipeline.images.tensors import Pixels

Samples = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16 [height, width, samples], each value below 2 to the power of its bits."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_ASSOCIATED, _UNASSOCIATED = 1, 2
# CorelDRAW 10 writes this value for unassociated alpha.
_COREL_ALPHA = 999


@dataclass(frozen=True)
class ColorLayout:
    """The tags that determine what samples mean.

    `extra`: of each sample beyond the colors; `color_map`: reds, greens and blues of 16 bits.
    """

    photometric: int
    bits: int
    extra: tuple[int, ...]
    color_map: tuple[int, ...]


def to_picture(samples: Samples, layout: ColorLayout) -> Image.Image:
    """The image, of mode L, RGB, CMYK or YCbCr, or RGBA if the page has alpha.

    Raises:
        ImageFailure: The layout is ambiguous or not supported.
    """
    colors = _COLORS.get(layout.photometric)
    if colors is None:
        raise unsupported(f"photometric interpretation {layout.photometric}")
    beyond = samples.shape[2] - colors
    if beyond < 0:
        raise corrupt(f"{samples.shape[2]} samples where the color space has {colors}")
    alpha = _alpha(samples, layout, beyond, colors)
    shown = samples[..., :colors]
    if layout.photometric == _WHITE_IS_ZERO:
        shown = (1 << layout.bits) - 1 - shown
    reduced = _look_up(shown, layout) if layout.photometric == _PALETTE else to_8_bits(shown, layout.bits)
    if layout.photometric in (_CMYK, _YCBCR):
        if alpha is not None:
            raise unsupported(f"alpha beside photometric interpretation {layout.photometric}")
        mode = "CMYK" if layout.photometric == _CMYK else "YCbCr"
        size = samples.shape[1], samples.shape[0]
        return Image.frombytes(mode, size, np.ascontiguousarray(reduced).tobytes())
    if alpha is None:
        return Image.fromarray(reduced[..., 0] if reduced.shape[2] == 1 else reduced)
    rgb = np.repeat(reduced, 3, axis=2) if reduced.shape[2] == 1 else reduced
    rgba = np.dstack([rgb, to_8_bits(alpha, layout.bits)])
    if layout.extra[:1] != (_ASSOCIATED,):
        return Image.fromarray(rgba)
    return Image.frombytes("RGBa", (rgba.shape[1], rgba.shape[0]), rgba.tobytes()).convert("RGBA")


def _alpha(samples: Samples, layout: ColorLayout, beyond: int, colors: int) -> Samples | None:
    """The alpha samples [height, width], or None."""
    if not beyond:
        return None
    if not layout.extra:
        # Many writers do not specify the fourth sample. If it is zero everywhere, it is not alpha.
        if layout.photometric != _RGB or beyond != 1:
            raise unsupported(f"{beyond} more samples than the color space has, without a specified meaning")
        return samples[..., colors] if samples[..., colors].any() else None
    if layout.extra[0] in (_ASSOCIATED, _UNASSOCIATED, _COREL_ALPHA):
        return samples[..., colors]
    return None


def to_8_bits(samples: Samples, bits: int) -> Pixels:
    """Scale samples of fewer than 8 bits to the range 0..255; of more, keep the upper 8 bits."""
    if bits == 8:
        return samples.astype(np.uint8, copy=False)
    if bits > 8:
        return (samples >> (bits - 8)).astype(np.uint8)
    most = (1 << bits) - 1
    return ((samples.astype(np.uint16) * 255 + most // 2) // most).astype(np.uint8)


def _look_up(indices: Samples, layout: ColorLayout) -> Pixels:
    if len(layout.color_map) != 3 << layout.bits:
        raise corrupt(f"a color map of {len(layout.color_map)} values for {layout.bits} bits")
    table = np.array(layout.color_map, np.uint16).reshape(3, -1).T
    # Old writers store 8-bit values in 16-bit maps; libtiff detects them in the same way.
    if table.max() > 255:
        table >>= 8
    return table.astype(np.uint8)[indices[..., 0]]
