"""Small valid files of every format, of all kinds that decoders distinguish."""

import io
from functools import cache
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from tests.pipeline.images.bmp_files import BGRA, COLORS, MASKS, RLE8, bmp, indices, run_lengths
from tests.pipeline.images.gif_files import VALUES, gif
from tests.pipeline.images.png_files import COLOR, GREY, chunk, png
from tests.pipeline.images.tiff_files import TiffFile, encode_pages

_PICTURE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6


def _encoded(mode: str, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_PICTURE).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def _jpeg() -> dict[str, bytes]:
    files = {
        f"{mode} {'progressive' if progressive else 'baseline'} {subsampling}": _encoded(
            mode, "JPEG", progressive=progressive, subsampling=subsampling
        )
        for mode in ("L", "RGB", "CMYK")
        for progressive in (False, True)
        for subsampling in (0, 2)
    }
    files["restarts"] = _encoded("RGB", "JPEG", restart_marker_blocks=1)
    files["metadata"] = _encoded("RGB", "JPEG", exif=_EXIF, comment=b"hello", xmp=b"<x/>")
    return files


def _png() -> dict[str, bytes]:
    files = {f"{mode}": _encoded(mode, "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")}
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8, 1)
    level = chunk(b"tRNS", b"\0\1")
    files |= {
        f"grey {depth}": png(grey & np.uint16((1 << depth) - 1), depth, GREY, level) for depth in (2, 4, 16)
    }
    colors = np.repeat(grey * 1000, 3, axis=2)
    files["color 16"] = png(colors, 16, COLOR, chunk(b"tRNS", bytes(6)), interlaced=True)
    files["metadata"] = _encoded("P", "PNG", exif=_EXIF, transparency=b"\0\x80", dpi=(72, 72))
    files["animation"] = _encoded("RGB", "PNG", save_all=True, append_images=[Image.new("RGB", (30, 24))])
    return files


def _webp() -> dict[str, bytes]:
    second = [Image.fromarray(255 - _PICTURE)]
    return {
        "lossy": _encoded("RGB", "WEBP"),
        "lossless": _encoded("RGBA", "WEBP", lossless=True, exif=_EXIF),
        "animation": _encoded("RGB", "WEBP", save_all=True, append_images=second),
    }


def _bmp() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, 11 * 13 * 4, np.uint8).tobytes()
    return {
        **{f"{mode}": _encoded(mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
        "run lengths": bmp(run_lengths(indices(8), 8, False), 8, compression=RLE8, palette=COLORS),
        "stored runs": bmp(run_lengths(indices(8), 8, True), 8, compression=RLE8, palette=COLORS),
        "masks": bmp(pixels, 32, size=108, compression=MASKS, masks=BGRA),
        "15 bits": bmp(pixels, 16),
    }


def _gif() -> dict[str, bytes]:
    second = [Image.fromarray(255 - _PICTURE).convert("P")]
    return {
        "palette": _encoded("P", "GIF", interlace=1),
        "transparent": _encoded("P", "GIF", transparency=3, comment=b"hello"),
        "animation": _encoded("P", "GIF", save_all=True, append_images=second),
        "part": gif(VALUES, 4, 4, transparent=2),
    }


def _tiff() -> dict[str, bytes]:
    files = {
        f"{mode} {compression}": _encoded(mode, "TIFF", compression=compression)
        for mode, compression in (
            ("RGB", "raw"),
            ("RGBA", "tiff_lzw"),
            ("P", "packbits"),
            ("CMYK", "tiff_adobe_deflate"),
            ("RGB", "jpeg"),
            ("YCbCr", "jpeg"),
            ("1", "group4"),
            ("1", "group3"),
            ("L", "zstd"),
        )
    }
    deep = np.arange(21 * 37 * 3, dtype=np.uint16).reshape(21, 37, 3)
    small = TiffFile(np.zeros((8, 8, 1), np.uint8), tags={254: (4, [1])})
    return files | {
        "12 bits": TiffFile(deep[..., :1], 12, 0).encode(),
        "planes": TiffFile(deep, 16, 2, order=">", planar=2, rows=5).encode(),
        "tiles": TiffFile(deep, 16, 2, tile=(16, 16), compression=8, predictor=2).encode(),
        "big": encode_pages([TiffFile(deep, 16, 2, big=True, rows=7)]),
        "pages": encode_pages([small, TiffFile(deep, 16, 2)]),
    }


def _heif() -> dict[str, bytes]:
    def encoded(mode: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(_PICTURE).convert(mode)).save(buffer, **options)
        return buffer.getvalue()

    return {mode: encoded(mode) for mode in ("L", "RGB", "RGBA")} | {"444": encoded("RGB", chroma=444)}


def _avif() -> dict[str, bytes]:
    second = [Image.fromarray(255 - _PICTURE)]
    return {
        **{mode: _encoded(mode, "AVIF") for mode in ("L", "RGB", "RGBA")},
        "metadata": _encoded("RGB", "AVIF", exif=_EXIF, subsampling="4:4:4"),
        "animation": _encoded("RGB", "AVIF", save_all=True, append_images=second),
    }


@cache
def seeds() -> dict[str, dict[str, bytes]]:
    """The files of each format, by name."""
    return {
        "JPEG": _jpeg(),
        "PNG": _png(),
        "WEBP": _webp(),
        "BMP": _bmp(),
        "GIF": _gif(),
        "TIFF": _tiff(),
        "HEIF": _heif(),
        "AVIF": _avif(),
    }
