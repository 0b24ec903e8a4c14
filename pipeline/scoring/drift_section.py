"""The drift of a run as the report shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TITLES = {
    "horizontal_centre": "centre, left to right",
    "vertical_centre": "centre, top to bottom",
}


@dataclass(frozen=True)
class DriftRow:
    """One measure: its value and threshold, both as they are and in percent of the scale.

    `means` names the mean over the test images and over the run; empty where there are none.
    """

    title: str
    value: float
    threshold: float
    width: float
    place: float
    has_drifted: bool
    means: str


@dataclass(frozen=True)
class DriftSection:
    """The verdict on a run.

    Attributes:
        has_drifted: Whether any measure has.
        rows: The measures, those that drifted furthest beyond their thresholds first.
        images: The images of the run.
        images_measured: Those whose pixels were measured.
        baseline_images: The test images.
    """

    has_drifted: bool
    rows: tuple[DriftRow, ...]
    images: int
    images_measured: int
    baseline_images: int


def read_drift(drift: Mapping[str, Any] | None) -> DriftSection | None:
    """The drift in a manifest as the report shows it; None if the run has no predictions."""
    if drift is None:
        return None
    rows = sorted(
        drift["measures"], key=lambda row: (row["verdict"] != "drifted", row["threshold"] - row["value"])
    )
    return DriftSection(
        drift["verdict"] == "drifted",
        tuple(
            DriftRow(
                title=_TITLES.get(row["measure"], row["measure"]),
                value=row["value"],
                threshold=row["threshold"],
                width=100 * min(row["value"], 1.0),
                place=100 * min(row["threshold"], 1.0),
                has_drifted=row["verdict"] == "drifted",
                means=_means(row),
            )
            for row in rows
        ),
        drift["images"],
        drift["images_measured"],
        drift["baseline_images"],
    )


def _means(row: Mapping[str, Any]) -> str:
    if row["mean"] is None or row["baseline_mean"] is None:
        return ""
    return f"{row['baseline_mean']:.3g} → {row['mean']:.3g}"
