"""Equal images that distort a dataset: under two classes, or in both training and test images."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pixelmill.pipeline.datasets.catalogue import Catalogue
from pixelmill.pipeline.datasets.catalogue_rows import PARTS, CatalogueRows, read_strings
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError

_MAX_EXAMPLES = 3
_MAX_CLASSES = 8
_TEST = PARTS.index("test")
_VALIDATION = PARTS.index("validation")
_POOL = -1
Mask = npt.NDArray[np.bool_]


def find_contradictions(rows: CatalogueRows) -> Mask:
    """The images whose content also appears under another class, bool [images].

    Nothing indicates which class is right, so none of the copies is used.
    """
    found = np.zeros(len(rows), np.bool_)
    read = np.flatnonzero(rows.is_read)
    if not len(read):
        return found
    _, content_of = np.unique(rows.contents[read], return_inverse=True)
    classes = rows.classes[read]
    lowest = np.full(content_of.max() + 1, len(rows.class_names), np.int32)
    highest = np.full(len(lowest), -1, np.int32)
    np.minimum.at(lowest, content_of, classes)
    np.maximum.at(highest, content_of, classes)
    found[read] = (lowest != highest)[content_of]
    return found


def duplicate_warnings(title: str, catalogue: Catalogue, rows: CatalogueRows, dropped: Mask) -> Iterator[str]:
    """Warnings about equal images, with examples.

    Args:
        title: The name of the dataset in the warnings.
        catalogue: Where the names of the examples are read.
        rows: Its rows.
        dropped: The images with contradictory classes.
    """
    if dropped.any():
        pairs = list(_contradicting(rows, _by_name(catalogue, np.flatnonzero(dropped))))
        yield (
            f"{title}: {int(dropped.sum())} images appear under more than one class and are left out of all: "
            f"{_examples(catalogue, rows, pairs)}"
        )
    kept = rows.is_read & ~dropped
    test = np.flatnonzero(kept & (rows.parts == _TEST))
    others = np.flatnonzero(kept & (rows.parts != _TEST))
    shared = np.isin(rows.contents[test], rows.contents[others])
    if shared.any():
        copies = _by_name(catalogue, test[shared])
        others = _by_name(catalogue, others[np.isin(rows.contents[others], rows.contents[copies])])
        known, first = np.unique(rows.contents[others], return_index=True)
        originals = others[first[np.searchsorted(known, rows.contents[copies])]]
        pairs = list(zip(originals.tolist(), copies.tolist(), strict=True))
        yield (
            f"{title}: {len(copies)} of {len(test)} test images are also training images, so the test "
            f"accuracy will be too high: {_examples(catalogue, rows, pairs)}"
        )


def require_enough(place: str, rows: CatalogueRows, dropped: Mask) -> None:
    """Require enough distinct images of each class for the splits.

    Args:
        place: Where the images are, as text to print.
        rows: The rows of the catalogue.
        dropped: The images with contradictory classes.

    Raises:
        RequestError: A class has too few for the splits that are chosen from it.
    """
    given = [part for part in (_VALIDATION, _TEST) if (rows.parts == part).any()]
    pools = np.where(np.isin(rows.parts, (_VALIDATION, _TEST)), rows.parts, _POOL)
    kept = rows.is_read & ~dropped
    for pool in (_POOL, *given):
        chosen = np.flatnonzero(kept & (pools == pool))
        _, first = np.unique(rows.contents[chosen], return_index=True)
        counts = np.bincount(rows.classes[chosen[first]], minlength=len(rows.class_names))
        least = 3 - len(given) if pool == _POOL else 1
        few = [
            (name, int(count)) for name, count in zip(rows.class_names, counts, strict=True) if count < least
        ]
        if few:
            names = {rows.class_names[code] for code in rows.classes[dropped]}
            raise _too_few(place, sorted(few), least, sorted(names & {name for name, _ in few}))


def _too_few(
    place: str, classes: Sequence[tuple[str, int]], least: int, shared: Sequence[str]
) -> RequestError:
    counts = ", ".join(
        f"class {name!r} has {count or 'no'} image{'s' * (count != 1)}"
        for name, count in classes[:_MAX_CLASSES]
    )
    if shared:
        return RequestError(
            f"{counts} not shared with other classes in {place}",
            f"at least {least} distinct images that no other class has",
            f"Check the images that other classes share with {', '.join(map(printable, shared))}.",
        )
    return RequestError(
        f"{counts} in {place}",
        f"at least {least} distinct images",
        "Add images to the class, or move them away.",
    )


def _by_name(catalogue: Catalogue, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    names = read_strings(catalogue, ["name"], chosen)["name"]
    sorted_rows: npt.NDArray[np.int64] = chosen[pc.sort_indices(names).to_numpy()]
    return sorted_rows


def _contradicting(rows: CatalogueRows, dropped: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The first image of each contradictory content, and the first of another class."""
    first: dict[bytes, int] = {}
    named: set[bytes] = set()
    for row in dropped.tolist():
        content = bytes(rows.contents[row])
        other = first.setdefault(content, row)
        if content not in named and rows.classes[other] != rows.classes[row]:
            named.add(content)
            yield other, row


def _examples(catalogue: Catalogue, rows: CatalogueRows, pairs: Sequence[tuple[int, int]]) -> str:
    chosen = np.array([row for pair in pairs[:_MAX_EXAMPLES] for row in pair], np.int64)
    names = read_strings(catalogue, ["name"], chosen)["name"].to_pylist()
    texts = [
        f"{name} (test)" if rows.parts[row] == _TEST else name
        for name, row in zip(names, chosen.tolist(), strict=True)
    ]
    shown = ", ".join(f"{first} and {second}" for first, second in zip(texts[::2], texts[1::2], strict=True))
    more = len(pairs) - _MAX_EXAMPLES
    return f"{shown}, and {more} more" if more > 0 else shown
