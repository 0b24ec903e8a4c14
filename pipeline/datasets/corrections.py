"""Corrections of labels: a CSV file that is laid over a dataset, whose files stay as they are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pixelmill.pipeline.datasets.catalogue import ListedImage
from pixelmill.pipeline.datasets.table_files import read_header, read_rows
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.recipes.spelling import did_you_mean
from pixelmill.pipeline.storage import is_remote, parse_location

EXCLUDE = "exclude"
_COLUMNS = ("sha256", "path", "label", "who", "when")
_MAX_NAMES = 3


class Correction(NamedTuple):
    """One row of a file of corrections.

    Attributes:
        place: Where it is, for messages.
        sha256: SHA-256 of the content that it is for, in lower case; empty if it is for a path.
        path: The name or origin of the image that it is for; empty if it is for a content.
        label: The class, or `exclude`.
        who: Who made it; may be empty.
        when: When it was made; may be empty.
    """

    place: str
    sha256: str
    path: str
    label: str
    who: str
    when: str


@dataclass
class AppliedCorrections:
    """What a file of corrections did to a dataset.

    Attributes:
        relabelled: Number of images that got another class.
        excluded: Number of images that were left out.
        unchanged: Number of images that had the class already.
        unmatched: The rows that are for no image.
    """

    relabelled: int = 0
    excluded: int = 0
    unchanged: int = 0
    unmatched: list[Correction] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """The numbers for a manifest."""
        return {
            "relabelled": self.relabelled,
            "excluded": self.excluded,
            "unchanged": self.unchanged,
            "unmatched": len(self.unmatched),
        }

    def warnings(self) -> Iterator[str]:
        """A warning about rows that are for no image."""
        if self.unmatched:
            shown = ", ".join(printable(row.place) for row in self.unmatched[:_MAX_NAMES])
            more = len(self.unmatched) - _MAX_NAMES
            yield (
                f"{len(self.unmatched)} corrections are for no image of the dataset: {shown}"
                f"{f', and {more} more' if more > 0 else ''}"
            )


@dataclass(frozen=True)
class Corrections:
    """Corrections by what they are for.

    Attributes:
        by_sha256: Those for a content, by its SHA-256.
        by_path: Those for a path.
    """

    by_sha256: Mapping[str, Correction]
    by_path: Mapping[str, Correction]

    @property
    def rows(self) -> Iterator[Correction]:
        """All corrections."""
        yield from self.by_sha256.values()
        yield from self.by_path.values()


def read_corrections(path: str) -> Corrections:
    """Read a CSV file with the columns `sha256` or `path` (or both), `label`, and maybe `who` and `when`.

    Raises:
        RequestError: It cannot be read, lacks a column or a value, or two rows contradict each other.
    """
    file = parse_location(path)
    if not is_remote(file) and not Path(path).is_file():
        raise RequestError(
            f"dataset.corrections {printable(path)} does not exist",
            "a CSV file with the columns sha256 or path, and label",
            "Correct dataset.corrections, or set it to null.",
        )
    _require_columns(path, read_header(file))
    by_sha256: dict[str, Correction] = {}
    by_path: dict[str, Correction] = {}
    for row in read_rows(file):
        values = {name: row.values.get(name, "") for name in _COLUMNS}
        values["sha256"] = values["sha256"].lower()
        values["label"] = normalize_label(values["label"])
        correction = Correction(row.place, **values)
        # The SHA-256 is the more exact of the two; a path may come to mean another image.
        known, key = (by_sha256, correction.sha256) if correction.sha256 else (by_path, correction.path)
        if not key or not correction.label:
            raise RequestError(
                f"{printable(row.place)} of the corrections has no {'label' if key else 'sha256 or path'}",
                "a sha256 or path and a label in every row",
                "Correct or remove the row.",
            )
        _require_agreement(known.setdefault(key, correction), correction, key)
    return Corrections(by_sha256, by_path)


class Corrector:
    """Lays corrections over images, one after the other.

    A path is compared with the name and the origin of an image, escaped or not. A correction by SHA-256 is
    for all images with that content.

    Attributes:
        applied: What was done so far.
    """

    def __init__(self, corrections: Corrections, class_names: Iterable[str] = ()) -> None:
        """Check the labels if the classes are known.

        Args:
            corrections: The corrections.
            class_names: The classes that a label may be; empty: those that the images have.

        Raises:
            RequestError: A label is no class.
        """
        self.applied = AppliedCorrections()
        self._corrections = corrections
        self._classes = set(class_names)
        self._seen: set[str] = set()
        self._used: set[str] = set()
        if self._classes:
            _require_classes(corrections, self._classes)

    def correct(self, image: ListedImage, sha256: str) -> ListedImage | None:
        """The image with its corrected class; None if it is excluded.

        Args:
            image: An image as it was listed.
            sha256: SHA-256 of its content, in hexadecimal; empty if it cannot be read.

        Raises:
            RequestError: Two corrections of it contradict each other.
        """
        self._seen.add(image.class_name)
        found = list(_matching(image, sha256, self._corrections))
        if not found:
            return image
        self._used.update(correction.place for correction in found)
        for other in found[1:]:
            _require_agreement(found[0], other, image.name)
        label = found[0].label
        if label == EXCLUDE:
            self.applied.excluded += 1
            return None
        if label == image.class_name:
            self.applied.unchanged += 1
            return image
        self.applied.relabelled += 1
        return replace(image, class_name=label)

    def finish(self) -> None:
        """Note the corrections that were for no image.

        Raises:
            RequestError: A label is no class of the images.
        """
        self.applied.unmatched += (row for row in self._corrections.rows if row.place not in self._used)
        if not self._classes:
            _require_classes(self._corrections, self._seen)


def _matching(image: ListedImage, sha256: str, corrections: Corrections) -> Iterator[Correction]:
    if sha256 in corrections.by_sha256:
        yield corrections.by_sha256[sha256]
    if corrections.by_path:
        names = {image.name, image.origin, unescape(image.name), unescape(image.origin)}
        yield from (corrections.by_path[name] for name in sorted(names) if name in corrections.by_path)


def _require_columns(path: str, columns: list[str]) -> None:
    if "label" in columns and ("sha256" in columns or "path" in columns):
        return
    missing = "label" if "label" not in columns else "path"
    raise RequestError(
        f"dataset.corrections {printable(path)} has no column {missing!r}",
        f"the columns sha256 or path, and label, in place of {', '.join(map(printable, columns)) or 'none'}",
        did_you_mean(missing, columns) or "Add a line with the names of the columns.",
    )


def _require_agreement(first: Correction, second: Correction, name: str) -> None:
    if first.label != second.label:
        told = (f"{printable(row.label)!r} in {_describe(row)}" for row in (first, second))
        raise RequestError(
            f"two corrections of {printable(name)} contradict each other: {' and '.join(told)}",
            "one label for each image",
            "Remove one of the rows.",
        )


def _describe(row: Correction) -> str:
    words = [printable(row.place)]
    if row.who:
        words.append(f"by {printable(row.who)}")
    if row.when:
        words.append(f"of {printable(row.when)}")
    return " ".join(words)


def _require_classes(corrections: Corrections, classes: set[str]) -> None:
    for row in corrections.rows:
        if row.label != EXCLUDE and row.label not in classes:
            raise RequestError(
                f"{printable(row.place)} of the corrections has the label {row.label!r}",
                f"`{EXCLUDE}` or one of the {len(classes)} classes",
                did_you_mean(row.label, sorted(classes)) or "Correct it, or add images of that class first.",
            )
