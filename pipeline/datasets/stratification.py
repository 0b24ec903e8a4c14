"""Filling a split with units of images until each class has its share."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets.contents import CONTENT_SIZE, KIND, Contents

Integers = npt.NDArray[np.int64]
Counts = Sequence[tuple[int, int]]
"""The classes in a unit, each with its number of images."""


@dataclass(frozen=True)
class Units:
    """Units whose split is still to be chosen.

    Attributes:
        keys: A unique content for each unit, by which units are ordered.
        starts: The first entry of each unit in `labels` and `counts`, and the end of the last one,
            int64 [units + 1].
        labels: The classes in each unit, one unit after the other, int64 [entries].
        counts: The number of images of each of these classes, int64 [entries].
    """

    keys: Contents
    starts: Integers
    labels: Integers
    counts: Integers

    def per_class(self, classes: int) -> Integers:
        """The number of units with images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=classes)

    def reader(self) -> Callable[[int], Counts]:
        """A function that returns the classes in a unit."""
        starts, labels, counts = self.starts.tolist(), self.labels.tolist(), self.counts.tolist()

        def read(unit: int) -> Counts:
            entries = slice(starts[unit], starts[unit + 1])
            return list(zip(labels[entries], counts[entries], strict=True))

        return read


@dataclass(frozen=True)
class Target:
    """What a split may take of each class.

    Attributes:
        wanted: The number of images that it lacks; negative where it has too many. int64 [classes].
        spare: The largest number of units that it may take, int64 [classes].
        present: Whether it has an image of the class already, bool [classes].
    """

    wanted: Integers
    spare: Integers
    present: npt.NDArray[np.bool_]


def fill_split(units: Units, target: Target, salt: str) -> list[int]:
    """Choose the units that a split takes, in the order of a hash of their keys.

    First come the units that fit into what the split lacks of each of their classes, then those that bring
    it closer to its shares although it then has too many of a class, then one for each class that has none.

    Args:
        units: The units to choose from.
        target: What the split may take.
        salt: Differs between splits, so that their choices are independent.

    Returns:
        Indices of units.
    """
    left = _in_order(units.keys, salt)
    counts_of = units.reader()
    wanted, spare, present = target.wanted.tolist(), target.spare.tolist(), target.present.tolist()
    chosen: list[int] = []

    def take(unit: int) -> None:
        chosen.append(unit)
        for label, count in counts_of(unit):
            wanted[label] -= count
            spare[label] -= 1
            present[label] = True

    def may_leave(counts: Counts) -> bool:
        return all(spare[label] > 0 for label, _ in counts)

    accepts: tuple[Callable[[Counts, Sequence[int]], bool], ...] = (_fits, _improves)
    for accept in accepts:
        kept = []
        for unit in left:
            counts = counts_of(unit)
            if may_leave(counts) and accept(counts, wanted):
                take(unit)
            else:
                kept.append(unit)
        left = kept
    for label in range(len(wanted)):
        if wanted[label] > 0 and not present[label]:
            able = [unit for unit in left if _holds(counts_of(unit), label) and may_leave(counts_of(unit))]
            if able:
                smallest = min(able, key=lambda unit: _excess(counts_of(unit), wanted))
                take(smallest)
                left.remove(smallest)
    return chosen


def _in_order(keys: Contents, salt: str) -> list[int]:
    """The units in the order of a hash of their keys in hexadecimal."""
    text = keys.tobytes().hex()
    size = 2 * CONTENT_SIZE
    digests = bytearray()
    for start in range(0, len(text), size):
        digests += hashlib.sha256(f"{salt}{text[start : start + size]}".encode()).digest()
    order: list[int] = np.argsort(np.frombuffer(digests, KIND), kind="stable").tolist()
    return order


def _fits(counts: Counts, wanted: Sequence[int]) -> bool:
    return all(count <= wanted[label] for label, count in counts)


def _improves(counts: Counts, wanted: Sequence[int]) -> bool:
    return sum(abs(wanted[label] - count) - abs(wanted[label]) for label, count in counts) < 0


def _excess(counts: Counts, wanted: Sequence[int]) -> int:
    return sum(max(0, count - max(0, wanted[label])) for label, count in counts)


def _holds(counts: Counts, label: int) -> bool:
    return any(found == label for found, _ in counts)
