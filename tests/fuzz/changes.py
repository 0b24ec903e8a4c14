"""Changes of a file as values, so that a finding of hypothesis can be saved and reproduced."""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from tests.fuzz.seeds import seeds

# Numbers at which the arithmetic of a reader may overflow.
_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    4096,
    32767,
    32768,
    65535,
    65536,
    1 << 24,
    1 << 31,
    (1 << 32) - 1,
)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82", "GIF": b"\0;"}


class Change(NamedTuple):
    """`at`: a position, modulo the length of the file; the meaning of `value` depends on the kind."""

    kind: str
    at: int
    value: int = 0


def _put(data: bytes, at: int, content: bytes) -> bytes:
    return data[:at] + content + data[at + len(content) :]


_KINDS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "flip": lambda data, at, value: _put(data, at, bytes((data[at] ^ 1 << value % 8,))),
    "byte": lambda data, at, value: _put(data, at, bytes((value & 255,))),
    "short": lambda data, at, value: _put(data, at, (value & 0xFFFF).to_bytes(2, "little")),
    "big short": lambda data, at, value: _put(data, at, (value & 0xFFFF).to_bytes(2)),
    "long": lambda data, at, value: _put(data, at, (value & 0xFFFFFFFF).to_bytes(4, "little")),
    "big long": lambda data, at, value: _put(data, at, (value & 0xFFFFFFFF).to_bytes(4)),
    "cut": lambda data, at, value: data[: max(at, 1)],
    "delete": lambda data, at, value: data[:at] + data[at + value % 64 + 1 :],
    "zeros": lambda data, at, value: data[:at] + bytes(value % 64) + data[at:],
    "ones": lambda data, at, value: data[:at] + b"\xff" * (value % 64) + data[at:],
    "repeat": lambda data, at, value: data[: at + value % 512] + data[at:],
}


class ChangedFile(NamedTuple):
    """A seed and its changes.

    `ended`: the end marker of the format is restored; `summed`: checksums are recomputed.
    """

    format: str
    seed: str
    changes: Sequence[Change]
    ended: bool = False
    summed: bool = False

    def encode(self) -> bytes:
        """The bytes of the file."""
        data = seeds()[self.format][self.seed]
        for change in self.changes:
            if data:
                data = _KINDS[change.kind](data, change.at % len(data), change.value)
        if self.ended:
            data += _ENDS.get(self.format, b"")
        return _with_right_sums(data) if self.summed and self.format == "PNG" else data


def _with_right_sums(data: bytes) -> bytes:
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        data = _put(data, end, zlib.crc32(data[at + 4 : end]).to_bytes(4))
        at = end + 4
    return data


def changed_files(file_format: str) -> st.SearchStrategy[ChangedFile]:
    """Files of a format with a few changes, mostly in the header."""
    places = st.one_of(st.integers(0, 200), st.integers(0, 20_000))
    values = st.one_of(st.sampled_from(_NUMBERS), st.integers(0, 255))
    change = st.builds(Change, st.sampled_from(sorted(_KINDS)), places, values)
    return st.builds(
        ChangedFile,
        st.just(file_format),
        st.sampled_from(sorted(seeds()[file_format])),
        st.lists(change, min_size=1, max_size=4),
        st.booleans(),
        st.booleans(),
    )
