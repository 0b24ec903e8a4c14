"""True labels from folder names: the first folder of an image's path, matched to a class of the model."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.scoring.listing import first_folders
from pixelmill.pipeline.storage import Location

_SHOWN = 3
_MOST_FOLDERS = 100
MOST_MISTAKES = 24


class FolderLabels:
    """Finds the true label of an image from its path, spelled as in the model."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = {normalize_label(name): name for name in classes}

    def of_path(self, path: str) -> str | None:
        """The class named by the first folder of a path in the table, spelled as in the model.

        The folder's name if it is not a class; None if the image is not in a folder.
        """
        folder, slash, _ = path.removeprefix("./").partition("/")  # `find .` prints such paths.
        return self.of_folder(unescape(folder), folder) if slash else None

    def of_text(self, text: str | None) -> str | None:
        """The class that a label in a table stands for; the label itself if it is not a class."""
        return self._classes.get(normalize_label(text), text) if text else None

    def of_folder(self, name: str, escaped: str) -> str:
        """The class that a folder's name stands for; a name that is not valid text stays escaped."""
        try:
            name.encode()
        except UnicodeEncodeError:
            return escaped
        return self._classes.get(normalize_label(name), name)


class Mistake(NamedTuple):
    """An image whose predicted label is not its true label, and the probability of the predicted one."""

    path: str
    true_label: str
    label: str
    probability: float


def _by_confidence(mistake: Mistake) -> tuple[float, str]:
    return -mistake.probability, mistake.path


@dataclass
class TrueLabelCounts:
    """Counts of predicted labels against true labels.

    Attributes:
        classes: The model's class names.
        pairs: Scored images by (true label, predicted label), for folders that are a class.
        not_classes: Scored images by folder, for folders that are not a class.
        mistakes: The wrong predictions with the highest probabilities, highest first.
    """

    classes: frozenset[str]
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    not_classes: Counter[str] = field(default_factory=Counter)
    mistakes: list[Mistake] = field(default_factory=list)

    def add_mistakes(self, mistakes: Iterable[Mistake]) -> None:
        """Add wrong predictions, of which the most confident are kept."""
        found = (mistake for mistake in mistakes if mistake.true_label in self.classes)
        self.mistakes = heapq.nsmallest(MOST_MISTAKES, [*self.mistakes, *found], key=_by_confidence)

    def add(self, true_labels: Sequence[str | None], labels: Iterator[str]) -> None:
        """Count the true and the predicted labels of some scored images."""
        for (true_label, label), count in Counter(zip(true_labels, labels, strict=True)).items():
            if true_label in self.classes:
                self.pairs[true_label, label] += count
            elif true_label is not None:
                self.not_classes[true_label] += count

    def accuracy(self) -> dict[str, Any]:
        """The accuracy on scored images whose folder is a class, overall and by class, for the manifest.

        The interval is that of Wilson, at 95%. Also counts the images that are left out because their folder
        is not a class.
        """
        classes: dict[str, dict[str, int]] = {}
        for (true_label, label), count in sorted(self.pairs.items()):
            entry = classes.setdefault(true_label, {"images": 0, "correct": 0})
            entry["images"] += count
            entry["correct"] += count * (label == true_label)
        images = sum(entry["images"] for entry in classes.values())
        correct = sum(entry["correct"] for entry in classes.values())
        return {
            "images": images,
            "correct": correct,
            "accuracy": correct / images if images else None,
            "interval": list(interval_of_proportion(correct, images)) if images else None,
            "classes": classes,
            "confusion": self._confusion(),
            "worst_mistakes": [
                {
                    "image_path": mistake.path,
                    "true_label": mistake.true_label,
                    "label": mistake.label,
                    "probability": mistake.probability,
                }
                for mistake in self.mistakes
            ],
            "not_classes": {
                "images": self.not_classes.total(),
                "folders": len(self.not_classes),
                "images_by_folder": dict(self.not_classes.most_common(_MOST_FOLDERS)),
            },
        }

    def _confusion(self) -> dict[str, dict[str, int]]:
        """Images by true label, then by predicted label, without zeros."""
        found: dict[str, dict[str, int]] = {}
        for (true_label, label), count in sorted(self.pairs.items()):
            found.setdefault(true_label, {})[label] = count
        return found


def format_not_classes(accuracy: Mapping[str, Any]) -> str:
    """The images of a manifest in folders that are not a class, as text; empty if there are none."""
    left_out = accuracy["not_classes"]
    if not left_out["images"]:
        return ""
    images, folders = left_out["images"], left_out["folders"]
    names = list(left_out["images_by_folder"])
    shown = ", ".join(printable(name) for name in names[:_SHOWN]) + ", ..." * (folders > _SHOWN)
    return (
        f"{images:,} image{'s' * (images != 1)} in {folders:,} folder{'s' * (folders != 1)} "
        f"that {'are not classes' if folders != 1 else 'is not a class'} of the model ({shown})"
    )


def require_class_folders(images: Location, classes: Sequence[str]) -> None:
    """Check that at least one immediate subfolder of the image folder is a class of the model.

    Raises:
        RequestError: None of them is.
    """
    require_classes(first_folders(images), str(images), classes)


def require_classes(folders: Iterable[str], images: str, classes: Sequence[str]) -> None:
    """Check that at least one folder is named after a class of the model.

    Args:
        folders: The names of the folders.
        images: What has them, for the message.
        classes: The class names.

    Raises:
        RequestError: None of them is.
    """
    labels = FolderLabels(classes)
    found: list[str] = []
    for name in folders:
        if labels.of_folder(name, "") in classes:
            return
        if len(found) <= _SHOWN:
            found.append(name)
    expected = [repr(name) for name in itertools.islice(classes, _SHOWN)]
    raise RequestError(
        f"`labels_from_folders`, and {images} has {_format_folders(found)}",
        f"folders named after the model's {len(classes):,} classes, such as {', '.join(expected)}",
        "Give the folder that holds one subfolder per class, or omit the option.",
    )


def _format_folders(names: Sequence[str]) -> str:
    if not names:
        return "no folders"
    shown = ", ".join(printable(repr(name)) for name in sorted(names[:_SHOWN]))
    return f"folders such as {shown}" if len(names) > 1 else f"the folder {shown}"
