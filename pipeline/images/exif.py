"""The EXIF orientation, the only EXIF field that affects pixels.

Pillow can read it, but parses every field, warns on the terminal about damaged ones, and for some formats
decodes the whole image first.
"""

import struct

UPRIGHT = 1
_ORIENTATION = 274
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# The `struct` formats of the field types that writers use.
_INTEGERS = {1: "B", 3: "H", 4: "I"}
_ENTRY_BYTES = 12


def valid_orientation(value: int) -> int:
    """A value from 1 to 8 unchanged; any other is undefined and becomes 1 (upright)."""
    return value if 1 <= value <= 8 else UPRIGHT


def orientation_of(exif: bytes) -> int:
    """The orientation in an EXIF block, with or without its `Exif` prefix.

    Returns:
        1 to 8; as in viewers, 1 (upright) if the block has none or is damaged.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(block[:4])
    if order is None or len(block) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for number in range(count):
        at = start + 2 + number * _ENTRY_BYTES
        if at + _ENTRY_BYTES > len(block):
            return UPRIGHT
        tag, kind = struct.unpack_from(f"{order}HH", block, at)
        if tag == _ORIENTATION and kind in _INTEGERS:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], block, at + 8)
            return valid_orientation(value)
    return UPRIGHT
