"""The HTML report of a scoring run: labels, confidence, failures, least confident images.

It is a single file without external references, so that it can be mailed, archived and opened anywhere.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline import __version__
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.scoring.confusion_section import most_confused, read_confusion
from pixelmill.pipeline.scoring.drift_section import read_drift
from pixelmill.pipeline.scoring.skipped import format_skipped
from pixelmill.pipeline.scoring.true_labels import format_not_classes
from pixelmill.pipeline.templates import open_templates

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "report.html.jinja"
_MOST_BARS = 50
_STAGES = ("read", "decode", "infer", "write")
_SMALL_IMAGE = 64
_PNG_START = b"\x89PNG"


@dataclass(frozen=True)
class FailedImage:
    """An image without a prediction, and the reason."""

    path: str
    error: str


@dataclass(frozen=True)
class UncertainImage:
    """An image and its top-1 prediction.

    `thumbnail` holds a PNG or JPEG file; None if the image can no longer be read.
    """

    path: str
    label: str
    probability: float
    thumbnail: bytes | None


@dataclass(frozen=True)
class ReportContent:
    """The content of the report.

    Attributes:
        manifest: The manifest of the table.
        confidence_counts: Number of images by top-1 probability, in equal bins over 0..1.
        failures: A few images of each failure code.
        least_confident: The scored images with the lowest probabilities, lowest first.
    """

    manifest: Mapping[str, Any]
    confidence_counts: Sequence[int]
    failures: Mapping[str, Sequence[FailedImage]]
    least_confident: Sequence[UncertainImage]


@dataclass(frozen=True)
class Bar:
    """A named count, its share of the total, and the width of its bar in percent."""

    name: str
    count: int
    share: str
    width: float


@dataclass(frozen=True)
class StageTime:
    """The time of one stage over all processes.

    `microseconds` is the time per image; None if no image was computed.
    """

    name: str
    seconds: float
    share: str
    width: float
    microseconds: float | None


@dataclass(frozen=True)
class ClassAccuracy:
    """The accuracy on the images of one true label."""

    name: str
    images: int
    correct: int
    share: str
    width: float


@cache
def load_template() -> "Template":
    """The report's template, cached because compiling it takes longer than rendering it."""
    environment = open_templates("pixelmill.pipeline.scoring")
    environment.finalize = _shown
    environment.filters["compact"] = compact
    environment.filters["duration"] = duration
    environment.filters["moment"] = _moment
    environment.filters["picture"] = _picture
    environment.filters["is_small"] = _is_small
    return environment.get_template(_TEMPLATE)


def render_scoring_report(content: ReportContent) -> str:
    """Render the report as one HTML page."""
    manifest = content.manifest
    accuracy, expected = manifest.get("accuracy"), manifest.get("expected_accuracy")
    page = load_template().render(
        content=content,
        manifest=manifest,
        labels=count_bars(manifest["labels"], manifest["scored"]),
        failures=count_bars(manifest["failures"], manifest["listed"]),
        most_bars=_MOST_BARS,
        highest_bin=max([*content.confidence_counts, 1]),
        drift=read_drift(manifest["drift"]),
        expected=expected,
        expected_share=share(expected["accuracy"], 1) if expected else "",
        decisions=manifest.get("decisions"),
        totals=_largest_totals(manifest),
        stages=_stage_times(manifest),
        accuracy=accuracy,
        accuracy_share=share(accuracy["correct"], accuracy["images"]) if accuracy else "",
        classes=_class_accuracies(accuracy["classes"]) if accuracy else [],
        confusion=read_confusion(accuracy) if accuracy else None,
        confused=most_confused(accuracy) if accuracy else [],
        not_classes=format_not_classes(accuracy) if accuracy else "",
        skipped=format_skipped(manifest["passed_over_kinds"]),
        pixelmill_version=__version__,
    )
    # A folder's name may not be valid text, but the page must be valid UTF-8.
    return page.encode("utf-8", "backslashreplace").decode()


def count_bars(counts: Mapping[str, int], whole: int) -> list[Bar]:
    """Counts as bars, highest first; the highest has the full width."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    highest = max([*counts.values(), 1])
    return [Bar(name, count, share(count, whole), 100 * count / highest) for name, count in ordered]


def share(part: float, whole: float) -> str:
    """A share in percent; only the whole is shown as 100%, and only nothing as 0%."""
    if whole <= 0:
        return "—"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1%"
    if 99.95 <= percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%"


def compact(count: int) -> str:
    """A count in at most five characters: `987`, `12.3k`, `4.6M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        value = count / size
        if value >= 0.9995:
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return str(count)


def duration(seconds: float) -> str:
    """A human-readable duration: `3.4 s`, `4 min 12 s`, `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _stage_times(manifest: Mapping[str, Any]) -> list[StageTime]:
    seconds = {stage: float(manifest["stage_seconds"].get(stage, 0)) for stage in _STAGES}
    total, computed = sum(seconds.values()), manifest.get("computed", 0)
    if not total:
        return []
    return [
        StageTime(
            name=stage,
            seconds=taken,
            share=share(taken, total),
            width=100 * taken / total,
            microseconds=1e6 * taken / computed if computed else None,
        )
        for stage, taken in seconds.items()
    ]


def _largest_totals(manifest: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The estimated total of each class that may be in the run, largest first."""
    totals = manifest.get("class_totals")
    found = totals["classes"].items() if totals else ()
    likely = [(name, row) for name, row in found if row["predicted"] or row["estimated"] >= 1]
    return sorted(likely, key=lambda row: (-row[1]["estimated"], row[0]))


def _class_accuracies(classes: Mapping[str, Mapping[str, int]]) -> list[ClassAccuracy]:
    rows = [
        ClassAccuracy(
            name=name,
            images=counts["images"],
            correct=counts["correct"],
            share=share(counts["correct"], counts["images"]),
            width=100 * counts["correct"] / max(counts["images"], 1),
        )
        for name, counts in classes.items()
        if counts["images"]
    ]
    return sorted(rows, key=lambda row: (row.width, row.name))


def _shown(value: object) -> object:
    """A value as shown on the page: names of files and classes may hold any character."""
    # Values with this method are HTML already.
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value)


def _moment(time: str) -> str:
    return time.replace("T", " ").replace("Z", " UTC")


def _picture(image: bytes) -> str:
    form = "png" if image.startswith(_PNG_START) else "jpeg"
    return f"data:image/{form};base64," + base64.b64encode(image).decode()


def _is_small(image: bytes) -> bool:
    """Whether a thumbnail has few pixels; one that was shrunk is a JPEG file and does not."""
    if not image.startswith(_PNG_START):
        return False
    # The first PNG chunk holds the width and the height.
    return max(int.from_bytes(image[16:20]), int.from_bytes(image[20:24])) <= _SMALL_IMAGE
