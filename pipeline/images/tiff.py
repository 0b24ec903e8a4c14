"""TIFF files: selection of the page, and interpretation of its tags.

Pillow supports a fixed list of layouts and misreads some files (planes of 16 bits, signed samples), so it is
only used for decompression, in `tiff_samples`. The tags determine what the samples mean; otherwise the file
is rejected.
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import tiff_samples
from pixelmill.pipeline.images.exif import UPRIGHT, valid_orientation
from pixelmill.pipeline.images.failures import corrupt, unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.tiff_colors import ColorLayout, to_picture
from pixelmill.pipeline.images.tiff_samples import SampleLayout

_STARTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_RATIONAL = 5
_MOST_PAGES = 1000
_REDUCED, _MASK = 1, 4
_OLD_REDUCED = 2
_NEW_SUBFILE, _OLD_SUBFILE = 254, 255
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES = 266, 273, 274, 277
_ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _FAX3, _FAX4 = 278, 279, 284, 292, 293
_PREDICTOR, _COLOR_MAP, _TILE_WIDTH, _TILE_HEIGHT = 317, 320, 322, 323
_TILE_OFFSETS, _TILE_BYTES, _SUB_PAGES, _INKS, _EXTRA = 324, 325, 330, 332, 338
_FORMAT, _JPEG_TABLES, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 339, 347, 529, 530, 532
_RGB, _CMYK, _YCBCR = 2, 5, 6
_MODES = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB"}


class _Entry(NamedTuple):
    kind: int
    length: int
    value: bytes


class _Page:
    """One image file directory."""

    def __init__(self, data: bytes, order: str, is_big: bool, start: int) -> None:
        self.data, self.order, self.is_big = data, order, is_big
        count_form, entry_form = ("Q", "HHQ8s") if is_big else ("H", "HHI4s")
        try:
            (count,) = struct.unpack_from(order + count_form, data, start)
            at = start + struct.calcsize(f"={count_form}")
            size = struct.calcsize(f"={entry_form}")
            if at + count * size > len(data):
                raise corrupt("the file ends within a list of tags")
            self.entries = {
                tag: _Entry(*rest)
                for tag, *rest in struct.iter_unpack(order + entry_form, data[at : at + count * size])
            }
            (self.next,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, at + count * size)
        except struct.error:
            raise corrupt("the file ends before its tags") from None

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The values of an integer tag."""
        entry = self.entries.get(tag)
        if entry is None:
            return default
        form = _INTEGERS.get(entry.kind)
        if form is None:
            raise corrupt(f"tag {tag} has type {entry.kind} instead of integers")
        return struct.unpack(
            f"{self.order}{entry.length}{form}", self.content(tag, struct.calcsize(f"={form}"))
        )

    def number(self, tag: int, default: int | None = None) -> int:
        """The value of a tag with a single integer."""
        if default is not None and tag not in self.entries:
            return default
        values = self.numbers(tag)
        if len(values) != 1:
            raise corrupt(f"tag {tag} has {len(values)} values instead of one")
        return values[0]

    def ratios(self, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """The values of a tag of fractions."""
        if tag not in self.entries:
            return default
        if self.entries[tag].kind != _RATIONAL:
            return tuple(map(float, self.numbers(tag)))
        pairs = struct.iter_unpack(f"{self.order}II", self.content(tag, 8))
        return tuple(upper / lower if lower else float("nan") for upper, lower in pairs)

    def content(self, tag: int, size: int = 1) -> bytes:
        """The bytes of a tag whose values have `size` bytes each."""
        entry = self.entries[tag]
        length = entry.length * size
        if length <= len(entry.value):
            return entry.value[:length]
        (start,) = struct.unpack(self.order + ("Q" if self.is_big else "I"), entry.value)
        if start + length > len(self.data):
            raise corrupt(f"tag {tag} is beyond the end of the file")
        return self.data[start : start + length]

    @property
    def is_image(self) -> bool:
        """Whether the page is the image itself rather than a reduced copy or a mask."""
        if self.number(_NEW_SUBFILE, 0) & (_REDUCED | _MASK):
            return False
        return self.number(_OLD_SUBFILE, 0) != _OLD_REDUCED


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a TIFF or BigTIFF file."""
    return data[:4] in _STARTS


def read(data: bytes) -> EncodedImage:
    """Read the tags of the first page of a TIFF file that is not a reduced copy.

    Raises:
        ImageFailure: The tags are truncated, or lack the size.
    """
    pages = _pages(data)
    first = next(pages, None)
    if first is None:
        raise corrupt("the file has no page")
    page = first if first.is_image else next((page for page in pages if page.is_image), first)
    mode = _MODES.get(page.number(_PHOTOMETRIC, 1), "?")
    bits = max(page.numbers(_BITS, (1,)), default=1)
    orientation = valid_orientation(page.number(_ORIENTATION, UPRIGHT))
    facts = FileFacts(
        "TIFF",
        mode if bits <= 8 else f"{mode};{bits}",
        page.number(_WIDTH),
        page.number(_HEIGHT),
        orientation,
    )
    return EncodedImage(facts, partial(_load, page))


def _pages(data: bytes) -> Iterator[_Page]:
    """All pages, each followed by its subpages."""
    order, is_big = _STARTS[data[:4]]
    form, at = ("Q", 8) if is_big else ("I", 4)
    if len(data) < at + struct.calcsize(f"={form}"):
        raise corrupt("the file ends within its header")
    (start,) = struct.unpack_from(order + form, data, at)
    waiting, seen = [start], set[int]()
    while waiting and len(seen) < _MOST_PAGES:
        start = waiting.pop(0)
        if not start or start in seen:
            continue
        seen.add(start)
        page = _Page(data, order, is_big, start)
        yield page
        waiting = [*page.numbers(_SUB_PAGES), *waiting, page.next]


def _load(page: _Page, _spec: ImageSpec) -> Image.Image:
    samples = _sample_layout(page)
    colors = _color_layout(page, samples)
    return to_picture(tiff_samples.read_samples(page.data, samples), colors)


def _sample_layout(page: _Page) -> SampleLayout:
    width, height = page.number(_WIDTH), page.number(_HEIGHT)
    count = page.number(_SAMPLES, 1)
    bits = page.numbers(_BITS, (1,))
    if not width or not height or not count:
        raise corrupt(f"an image of {width} x {height} pixels with {count} samples")
    if len(bits) not in (1, count) or len(set(bits)) != 1:
        raise unsupported(f"samples of {', '.join(map(str, bits[:8]))} bits")
    kinds = set(page.numbers(_FORMAT, (1,)))
    if not 1 <= bits[0] <= 16 or not kinds <= {1, 4}:
        raise unsupported(f"samples of {bits[0]} bits, format {', '.join(map(str, sorted(kinds)))}")
    planes, fill_order = page.number(_PLANAR, 1), page.number(_FILL_ORDER, 1)
    if planes not in (1, 2) or fill_order not in (1, 2):
        raise corrupt(f"planar configuration {planes}, fill order {fill_order}")
    is_tiled = _TILE_OFFSETS in page.entries
    rows = page.number(_TILE_HEIGHT) if is_tiled else min(page.number(_ROWS_PER_STRIP, height), height)
    photometric = page.number(_PHOTOMETRIC, 1)
    return SampleLayout(
        width=width,
        height=height,
        samples=count,
        bits=bits[0],
        order=page.order,
        is_planar=planes == 2 and count > 1,
        compression=page.number(_COMPRESSION, 1),
        predictor=page.number(_PREDICTOR, 1),
        is_bit_reversed=fill_order == 2,
        fax_options={tag: page.number(tag) for tag in (_FAX3, _FAX4) if tag in page.entries},
        jpeg_tables=page.content(_JPEG_TABLES) if _JPEG_TABLES in page.entries else b"",
        is_ycbcr=photometric == _YCBCR,
        block_width=page.number(_TILE_WIDTH) if is_tiled else width,
        block_height=rows,
        is_tiled=is_tiled,
        offsets=page.numbers(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS),
        byte_counts=page.numbers(_TILE_BYTES if is_tiled else _STRIP_BYTES),
    )


def _color_layout(page: _Page, samples: SampleLayout) -> ColorLayout:
    if _PHOTOMETRIC not in page.entries:
        raise unsupported("the photometric interpretation (tag 262) is missing")
    photometric = page.number(_PHOTOMETRIC)
    if photometric == _CMYK and page.number(_INKS, 1) != 1:
        raise unsupported("inks other than cyan, magenta, yellow and black")
    if photometric == _YCBCR:
        if samples.is_jpeg:
            photometric = _RGB  # The JPEG decoder has converted the samples.
        else:
            _check_plain_ycbcr(page)
    return ColorLayout(
        photometric=photometric,
        bits=samples.bits,
        extra=page.numbers(_EXTRA),
        color_map=page.numbers(_COLOR_MAP),
    )


def _check_plain_ycbcr(page: _Page) -> None:
    """Reject YCbCr with subsampling or with a conversion formula other than JPEG's."""
    usual = (
        page.numbers(_SUBSAMPLING, (2, 2)) == (1, 1)
        and page.ratios(_COEFFICIENTS, (0.299, 0.587, 0.114)) == (0.299, 0.587, 0.114)
        and page.ratios(_REFERENCE, (0, 255, 128, 255, 128, 255)) == (0, 255, 128, 255, 128, 255)
    )
    if not usual:
        raise unsupported("YCbCr samples that are subsampled, or whose range differs from JPEG's")
