"""Which split each image belongs to, decided once and never changed.

Images of one group, near duplicates and equal contents form a unit, which is on one side. What was decided
before stays; new units fill what each split lacks of each class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.datasets.contents import Contents
from pixelmill.pipeline.datasets.decisions import OPEN, SPLITS, Decisions, Sides
from pixelmill.pipeline.datasets.stratification import Integers, Target, Units, fill_split
from pixelmill.pipeline.errors import RequestError

_TRAIN, _VALIDATION, _TEST = range(3)
_OPEN, LEFT_OUT = OPEN, -2
_MAX_NAMES = 3


@dataclass(frozen=True)
class Undivided:
    """What decides the splits of a dataset, with one entry for each image.

    Attributes:
        contents: SHA-256, bytes32 [images].
        labels: The class index, int64 [images].
        names: What warnings call the images of these rows.
        parts: The split that the source assigns, int8 [images]; `OPEN` if it assigns none. A source with a
            test set but no validation set, or the reverse, leaves the other one to be taken from its training
            images.
        groups: The number of the group, int64 [images]; -1 for an image without one.
        components: The near-duplicate component, int64 [images]; None if near duplicates do not matter.
    """

    contents: Contents
    labels: Labels
    names: Callable[[Integers], Sequence[str]]
    parts: Sides
    groups: Integers
    components: Integers | None = None


@dataclass(frozen=True)
class Fractions:
    """The shares of the images of each class that are held out.

    Attributes:
        test: The share of the test split; None if the source must bring its own.
        validation: The share of the validation split in the images that are not test images.
    """

    test: float | None
    validation: float


@dataclass(frozen=True)
class Division:
    """The splits of a dataset.

    Attributes:
        sides: The split of each image, int8 [images]; `LEFT_OUT` for one that connects two splits.
        decisions: The split of each content that is not left out. For a content that the source put into
            several splits, it is the first of train, validation and test.
        units: The key of the unit of each content in `decisions`: the smallest SHA-256 in the unit.
        warnings: Problems that deserve attention, one line each.
    """

    sides: Sides
    decisions: Decisions
    units: Contents
    warnings: tuple[str, ...] = ()


def assign_splits(images: Undivided, fractions: Fractions, decided: Decisions) -> Division:
    """Assign every image to a split.

    An image that the source or an earlier run assigned stays there. Its unit follows it; a new image whose
    unit is already in two splits is left out. All other units are chosen in the order of a hash, so that each
    class gets its share of test and validation images, and at least one of each if it has three units.

    Args:
        images: All images of the dataset, in any order.
        fractions: The shares.
        decided: The decisions of earlier runs; they may contain images that are gone.

    Raises:
        RequestError: There are no test images, and no share of them is given.
    """
    contents, content_of = np.unique(images.contents, return_inverse=True)
    unit_of = _find_units(images, content_of)
    parts, known = images.parts, decided.sides_of(contents)
    has_test, has_validation = bool((parts == _TEST).any()), bool((parts == _VALIDATION).any())
    if not has_test and fractions.test is None:
        raise RequestError("a dataset without test images", "a test set", "Set dataset.test_path.")
    given = [side for side, is_given in ((_VALIDATION, has_validation), (_TEST, has_test)) if is_given]
    sides = _decided_sides(parts, known[content_of], content_of, given)
    _follow_units(sides, parts, unit_of, given)
    rows = _Rows(sides, parts, unit_of, content_of, contents, images.labels)
    if not has_test and fractions.test is not None:
        rows.fill(_TEST, fractions.test, fills_validation=not has_validation)
    if not has_validation:
        rows.fill(_VALIDATION, fractions.validation)
    sides[sides == _OPEN] = _TRAIN
    keys, first = _unit_keys(unit_of, content_of), _first_sides(sides, content_of, len(contents))
    unit_of_content = np.zeros(len(contents), np.int64)
    unit_of_content[content_of] = unit_of
    kept = first <= _TEST
    return Division(
        sides=sides,
        decisions=Decisions(contents[kept], first[kept]),
        units=contents[keys[unit_of_content[kept]]],
        warnings=tuple(_warnings(images, sides, parts, known[content_of])),
    )


def _find_units(images: Undivided, content_of: Integers) -> Integers:
    """Number the units: images that share a content, a group or a component are in one unit."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = nodes = len(content_of)
    edges = []
    for members in (content_of, images.groups, images.components):
        if members is not None and count:
            # Every content, group and component is a node beside the images, joined to its members.
            rows = np.flatnonzero(members >= 0)
            edges.append(np.stack([rows, members[rows] + nodes]))
            nodes += int(members.max()) + 1
    pairs = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(nodes, nodes))
    found: Integers = connected_components(graph, directed=False)[1][:count].astype(np.int64)
    return found


def _decided_sides(parts: Sides, known: Sides, content_of: Integers, given: Sequence[int]) -> Sides:
    """The side of each image by its part, by the part of an equal image, or by an earlier decision.

    Args:
        parts: The parts of the source, int8 [images].
        known: The earlier decisions, int8 [images].
        content_of: The content of each image, int64 [images].
        given: Which of the test and validation sets the source brings; its training images are in neither.
    """
    own = np.where((parts == _TRAIN) & (len(given) < 2), _OPEN, parts).astype(np.int8)
    sides = own.copy()
    # Of equal images with several parts, the first of train, validation and test counts.
    by_content = np.full(content_of.max(initial=-1) + 1, np.iinfo(np.int8).max, np.int8)
    np.minimum.at(by_content, content_of[own >= 0], own[own >= 0])
    equal = by_content[content_of]
    follows = (parts == _OPEN) & (equal <= _TEST)
    sides[follows] = equal[follows]
    able = (sides == _OPEN) & (known >= 0) & ~((parts == _TRAIN) & np.isin(known, given))
    sides[able] = known[able]
    return sides


def _follow_units(sides: Sides, parts: Sides, unit_of: Integers, given: Sequence[int]) -> None:
    """Put open images on the side of their unit, or leave them out if the unit is on several."""
    reached = np.zeros(unit_of.max(initial=-1) + 1, np.uint8)
    settled = sides >= 0
    np.bitwise_or.at(reached, unit_of[settled], np.left_shift(1, sides[settled]).astype(np.uint8))
    masks = reached[unit_of]
    for side in given:
        # What the source separated stays separate, even if it is alike.
        masks[parts == _TRAIN] &= np.uint8(0xFF ^ (1 << side))
    is_open = sides == _OPEN
    for side in (_TRAIN, _VALIDATION, _TEST):
        sides[is_open & (masks == 1 << side)] = side
    sides[is_open & (np.bitwise_count(masks) > 1)] = LEFT_OUT


@dataclass(frozen=True)
class _Rows:
    """All images while their splits are filled; `sides` is changed in place."""

    sides: Sides
    parts: Sides
    unit_of: Integers
    content_of: Integers
    contents: Contents
    labels: Labels

    def fill(self, side: int, fraction: float, *, fills_validation: bool = False) -> None:
        """Move open units to a side until each class has its share there.

        Args:
            side: The side to fill.
            fraction: The share of all images that are on this side, in training, or open.
            fills_validation: Whether validation is filled next, so that each class keeps a unit for it.
        """
        first = self._first_rows()
        classes = int(self.labels.max(initial=-1)) + 1

        def count(*sides: int) -> Integers:
            rows = first[np.isin(self.sides[first], sides)]
            return np.bincount(self.labels[rows], minlength=classes)

        units, numbers = self._open_units(first)
        train, held, validation = count(_TRAIN), count(side), count(_VALIDATION)
        total = train + held + count(_OPEN) + (validation if side != _VALIDATION else 0)
        shares = np.array([max(1, round(int(size) * fraction)) if size else 0 for size in total], np.int64)
        spare = units.per_class(classes) - (train == 0)
        if fills_validation:
            # One unit is kept for validation if there is one beside those for training and for this side.
            spare -= (validation == 0) & (spare > (held == 0))
        target = Target(shares - held, np.maximum(spare, 0), held > 0)
        taken = np.zeros(self.unit_of.max(initial=-1) + 1, np.bool_)
        taken[numbers[fill_split(units, target, SPLITS[side])]] = True
        self.sides[(self.sides == _OPEN) & taken[self.unit_of]] = side

    def _first_rows(self) -> Integers:
        """The first row of each content outside the source's test set; its label is that of the content."""
        rows = np.flatnonzero(self.parts != _TEST)
        _, first = np.unique(self.content_of[rows], return_index=True)
        found: Integers = rows[first]
        return found

    def _open_units(self, first: Integers) -> tuple[Units, Integers]:
        """The open units and their numbers."""
        rows = first[self.sides[first] == _OPEN]
        classes = int(self.labels.max(initial=0)) + 1
        codes, counts = np.unique(self.unit_of[rows] * classes + self.labels[rows], return_counts=True)
        numbers, starts = np.unique(codes // classes, return_index=True)
        keys = _unit_keys(self.unit_of[rows], self.content_of[rows])[numbers]
        return Units(self.contents[keys], np.append(starts, len(codes)), codes % classes, counts), numbers


def _unit_keys(unit_of: Integers, content_of: Integers) -> Integers:
    """The smallest content in each unit, int64 [units]; contents are numbered in ascending order."""
    keys = np.full(unit_of.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(keys, unit_of, content_of)
    return keys


def _first_sides(sides: Sides, content_of: Integers, count: int) -> Sides:
    """The first of train, validation and test that each content is in; above `_TEST` for none."""
    first = np.full(count, _TEST + 1, np.int8)
    kept = sides >= 0
    np.minimum.at(first, content_of[kept], sides[kept])
    return first


def _warnings(images: Undivided, sides: Sides, parts: Sides, known: Sides) -> list[str]:
    found = []
    if names := _names(images, sides == LEFT_OUT):
        found.append(
            f"{names}, left out: each is a near duplicate or in the group of images that are already in "
            "different splits"
        )
    if names := _names(images, (parts == _TEST) & ((known == _TRAIN) | (known == _VALIDATION))):
        found.append(
            f"{names}, in the test set of the dataset, though earlier versions may have been trained on them"
        )
    return found


def _names(images: Undivided, chosen: npt.NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(chosen)
    shown = ", ".join(images.names(rows[:_MAX_NAMES]))
    more = f" and {len(rows) - _MAX_NAMES:,} more" if len(rows) > _MAX_NAMES else ""
    return f"{len(rows):,} image{'s' * (len(rows) != 1)} ({shown}{more})" if len(rows) else ""
