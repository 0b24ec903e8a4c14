"""The audit of a dataset: what is wrong with its images. Nothing of it changes a file of the dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pixelmill.pipeline.config.audit import FindingKind
from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.inference import Probabilities

if TYPE_CHECKING:
    import pyarrow as pa

AUDIT_FOLDER = "audit"
AUDIT_FILE = "audit.json"
PAGE_FILE = "index.html"


class Tensors(Protocol):
    """uint8 [images, height, width, channels], read from disk when it is indexed."""

    def __getitem__(self, key: Any, /) -> Any:
        """One image or several, as a NumPy array."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for images by a model that was not trained on them.

    Attributes:
        sha256: The content of each image, in hexadecimal.
        labels: int64 [images], class indices.
        probabilities: float32 [images, classes].
    """

    sha256: tuple[str, ...]
    labels: Labels
    probabilities: Probabilities


@dataclass(frozen=True)
class AuditInput:
    """What is known of the images of a dataset.

    Attributes:
        name: The name of the dataset, for people.
        images: One row for each image. Strings: `path` (relative to the dataset, escaped), `sha256` (null if
            it could not be read), `label` (a class name), `split` (null if it is in none), `group` (null if
            it has none), `error` (why it is unreadable; null if it is readable). Integers: `width` and
            `height` as displayed, `component` (the same for nearly equal images), `tensor` (its index in
            `tensors`); null if unknown. The fields of `Measures`, null if unreadable.
        tensors: What the network gets of the images.
        class_names: In the order of the labels.
        predictions: Of the trained model, for images of the other splits.
        training_predictions: The probability of each class, given a training image and its label.
    """

    name: str
    images: "pa.Table"
    tensors: Tensors
    class_names: tuple[str, ...]
    predictions: Predictions | None = None
    training_predictions: Predictions | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        row: The image, by its row in `AuditInput.images`; None if it concerns a whole class.
        path: The path of the image, or the name of the class.
        reason: What was found, in words.
        other: The row of the image that it was compared with.
        facts: Further fields in `audit.json`.
    """

    row: int | None
    path: str
    reason: str
    other: int | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        images: Number of images looked at.
        findings: By kind, in the order of `FindingKind`, the worst first; kinds that are ignored are missing.
        stopped: The kinds that were found and end the run.
    """

    images: int
    findings: Mapping[FindingKind, tuple[Finding, ...]]
    stopped: tuple[FindingKind, ...]
