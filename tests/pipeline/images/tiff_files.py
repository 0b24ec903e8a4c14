"""Writing TIFF files from the specification, in every layout that a reader may encounter."""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_FORMS = {1: "B", _SHORT: "H", _LONG: "I", _LONG8: "Q"}


def pack_bits(data: bytes) -> bytes:
    """PackBits: a length and the repeated byte."""
    out = b""
    for value, run in itertools.groupby(data):
        count = len(list(run))
        while count:
            part = min(count, 128)
            out += struct.pack("bB", 1 - part, value) if part > 1 else bytes((0, value))
            count -= part
    return out


COMPRESSORS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    8: zlib.compress,
    32946: zlib.compress,
    32773: pack_bits,
}


@dataclass
class TiffFile:
    """The storage of the samples [height, width, samples] of one page."""

    samples: Samples
    bits: int = 8
    photometric: int = 1
    order: str = "<"
    big: bool = False
    planar: int = 1
    rows: int | None = None
    tile: tuple[int, int] | None = None
    compression: int = 1
    predictor: int = 1
    fill_order: int = 1
    extra: tuple[int, ...] | None = None
    color_map: Iterable[int] | None = None
    tags: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of a file with only this page."""
        return encode_pages([self])

    def blocks(self) -> list[bytes]:
        """The strips or tiles, compressed."""
        planes = [self.samples[..., n : n + 1] for n in range(self.samples.shape[2])]
        parts = planes if self.planar == 2 else [self.samples]
        return [self._compress(block) for plane in parts for block in self._cut(plane)]

    def _cut(self, plane: Samples) -> list[Samples]:
        height, width = plane.shape[:2]
        if self.tile is None:
            rows = self.rows or height
            return [plane[top : top + rows] for top in range(0, height, rows)]
        high, wide = self.tile
        padded = np.pad(plane, [(0, -height % high), (0, -width % wide), (0, 0)], mode="edge")
        return [
            padded[top : top + high, left : left + wide]
            for top in range(0, height, high)
            for left in range(0, width, wide)
        ]

    def _compress(self, block: Samples) -> bytes:
        if self.predictor == 2:
            block = np.concatenate([block[:, :1], np.diff(block, axis=1)], axis=1)
        if self.bits in (8, 16, 32, 64):
            data = block.astype(f"{self.order}{block.dtype.kind}{self.bits // 8}").tobytes()
        else:
            flat = block.reshape(len(block), -1).astype(np.uint32)
            bits = (flat[..., np.newaxis] >> np.arange(self.bits)[::-1]) & 1
            data = np.packbits(bits.reshape(len(block), -1).astype(np.uint8), axis=1).tobytes()
        data = COMPRESSORS[self.compression](data)
        return bytes(int(f"{value:08b}"[::-1], 2) for value in data) if self.fill_order == 2 else data

    def entries(self, offsets: list[int], counts: list[int]) -> dict[int, tuple[int, list[int]]]:
        """The tags of the page."""
        height, width, count = self.samples.shape
        tags: dict[int, tuple[int, list[int]]] = {
            256: (_LONG, [width]),
            257: (_LONG, [height]),
            258: (_SHORT, [self.bits] * count),
            259: (_SHORT, [self.compression]),
            262: (_SHORT, [self.photometric]),
            266: (_SHORT, [self.fill_order]),
            277: (_SHORT, [count]),
            284: (_SHORT, [self.planar]),
            317: (_SHORT, [self.predictor]),
        }
        if self.tile is None:
            tags |= {273: (_LONG, offsets), 278: (_LONG, [self.rows or height]), 279: (_LONG, counts)}
        else:
            tags |= {322: (_LONG, [self.tile[1]]), 323: (_LONG, [self.tile[0]])}
            tags |= {324: (_LONG, offsets), 325: (_LONG, counts)}
        if self.extra is not None:
            tags[338] = _SHORT, list(self.extra)
        if self.color_map is not None:
            tags[320] = _SHORT, list(self.color_map)
        return tags | self.tags


def encode_pages(pages: list[TiffFile]) -> bytes:
    """A file with several pages, in the byte order and with the offset size of the first."""
    order, big = pages[0].order, pages[0].big
    letters = {"<": b"II", ">": b"MM"}[order]
    head = letters + (struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42))
    link = "Q" if big else "I"
    data, link_at = bytearray(head + struct.pack(order + link, 0)), len(head)
    for page in pages:
        offsets, counts = [], []
        for block in page.blocks():
            offsets.append(len(data))
            counts.append(len(block))
            data += block + b"\0" * (len(block) % 2)
        entries = b""
        for tag, (kind, values) in sorted(page.entries(offsets, counts).items()):
            form = "II" * (len(values) // 2) if kind == _RATIONAL else _FORMS[kind] * len(values)
            content, room = struct.pack(order + form, *values), 8 if big else 4
            if len(content) > room:
                place = struct.pack(order + link, len(data))
                data += content + b"\0" * (len(content) % 2)
            else:
                place = content.ljust(room, b"\0")
            length = len(values) // 2 if kind == _RATIONAL else len(values)
            entries += struct.pack(f"{order}HH{link}", tag, kind, length) + place
        struct.pack_into(order + link, data, link_at, len(data))
        data += struct.pack(order + ("Q" if big else "H"), len(page.entries(offsets, counts))) + entries
        link_at = len(data)
        data += struct.pack(order + link, 0)
    return bytes(data)
