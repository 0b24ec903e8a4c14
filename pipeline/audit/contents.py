"""Findings about images that are equal, nearly equal, or in the wrong company."""

from collections.abc import Iterator

import numpy as np

from pixelmill.pipeline.audit import AuditInput, Finding
from pixelmill.pipeline.audit.columns import (
    SPLITS,
    Codes,
    codes_of,
    first_of_each,
    integers_of,
    splits_of,
)
from pixelmill.pipeline.config.audit import AuditSpec

_SAME = (("sha256", "equal to"), ("component", "nearly equal to"), ("group", "of the same group as"))


def find_duplicates(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Files with the content and the class of an earlier file."""
    contents, labels = codes_of(given.images["sha256"]), codes_of(given.images["label"])
    first = first_of_each(np.where(contents < 0, -1, contents * (labels.max(initial=0) + 1) + labels))
    rows = np.flatnonzero(first != np.arange(len(first)))
    yield from _compared(given, rows, first[rows], "equal to")


def find_near_duplicates(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images that are nearly equal to an earlier image, of another content."""
    contents = codes_of(given.images["sha256"])
    first = first_of_each(_keys(given, "component"))
    is_first_of_content = first_of_each(contents) == np.arange(len(contents))
    rows = np.flatnonzero(is_first_of_content & (contents != contents[first]))
    yield from _compared(given, rows, first[rows], "nearly equal to")


def find_contradictions(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Files whose content is also in another class."""
    contents, labels = codes_of(given.images["sha256"]), codes_of(given.images["label"])
    lowest, highest = first_of_each(contents, labels), first_of_each(contents, -labels)
    other = np.where(labels[lowest] != labels, lowest, highest)
    rows = np.flatnonzero(labels[other] != labels)
    yield from _compared(given, rows, other[rows], "equal to")


def find_leaks(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images of a split whose like is in an earlier split: training, validation, test."""
    splits = splits_of(given.images["split"])
    reported = splits < 0
    for column, words in _SAME:
        keys = np.where(splits < 0, -1, _keys(given, column))
        first = first_of_each(keys, splits)
        rows = np.flatnonzero(~reported & (splits != splits[first]))
        reported[rows] = True
        yield from _compared(given, rows, first[rows], words)


def _keys(given: AuditInput, column: str) -> Codes:
    values = given.images[column]
    return integers_of(values) if column == "component" else codes_of(values)


def _compared(given: AuditInput, rows: Codes, others: Codes, words: str) -> Iterator[Finding]:
    columns = ["path", "label", "split"]
    own = given.images.select(columns).take(rows).to_pylist()
    like = given.images.select(columns).take(others).to_pylist()
    for row, other, image, compared in zip(rows.tolist(), others.tolist(), own, like, strict=True):
        reason = f"{words} {compared['path']}"
        if image["split"] in SPLITS and compared["split"] not in (None, image["split"]):
            reason += f", which is in the {compared['split']} split"
        if image["label"] != compared["label"]:
            reason += f", whose label is {compared['label']}"
        facts = {"other_path": compared["path"], "other_label": compared["label"]}
        if compared["split"]:
            facts["other_split"] = compared["split"]
        yield Finding(row, image["path"], reason, other, facts)
