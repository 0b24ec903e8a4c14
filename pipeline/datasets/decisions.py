"""Which split each content is in, as arrays: a million decisions take 33 MB."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import SplitName
from pixelmill.pipeline.datasets.contents import KIND, Contents, as_contents, as_hexadecimal

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
OPEN = -1
"""Of a content that is in no split yet."""
Sides = npt.NDArray[np.int8]
"""Indices in `SPLITS`."""


class Decisions(Mapping[str, SplitName]):
    """The split of contents; as a mapping, by their SHA-256 in hexadecimal.

    Args:
        contents: Distinct contents, ascending.
        sides: The split of each.
    """

    def __init__(self, contents: Contents, sides: Sides) -> None:
        self.contents, self.sides = contents, sides

    @staticmethod
    def nothing() -> "Decisions":
        """No decision."""
        return Decisions(np.empty(0, KIND), np.empty(0, np.int8))

    def sides_of(self, contents: Contents) -> Sides:
        """The split of each of these contents, int8 [contents]; `OPEN` where none was decided."""
        if not len(self.contents):
            return np.full(len(contents), OPEN, np.int8)
        places = np.minimum(np.searchsorted(self.contents, contents), len(self.contents) - 1)
        found: Sides = np.where(self.contents[places] == contents, self.sides[places], OPEN).astype(np.int8)
        return found

    def updated(self, contents: Contents, sides: Sides) -> "Decisions":
        """These decisions and later ones, which win."""
        everything = np.concatenate([contents[::-1], self.contents])
        distinct, first = np.unique(everything, return_index=True)
        return Decisions(distinct, np.concatenate([sides[::-1], self.sides])[first])

    def __getitem__(self, sha256: str) -> SplitName:
        try:
            side = int(self.sides_of(as_contents([sha256]))[0])
        except ValueError:
            raise KeyError(sha256) from None
        if side == OPEN:
            raise KeyError(sha256)
        return SPLITS[side]

    def __iter__(self) -> Iterator[str]:
        return iter(as_hexadecimal(self.contents))

    def __len__(self) -> int:
        return len(self.contents)
