"""The drift of a run in words, and as a table for pages."""

from collections.abc import Mapping
from typing import Any


def describe_drift(manifest: Mapping[str, Any]) -> str:
    """The verdict on one line, with the expected accuracy; `manifest` is that of a prediction table."""
    drift, expected = manifest["drift"], manifest["expected_accuracy"]
    moved = [row for row in drift["measures"] if row["verdict"] == "drifted"]
    moved.sort(key=lambda row: row["threshold"] - row["value"])
    words = (
        "drifted from the test images: "
        + ", ".join(
            f"{row['measure'].replace('_', ' ')} {row['value']:.2f} (threshold {row['threshold']:.2f})"
            for row in moved
        )
        if moved
        else f"none, {len(drift['measures'])} measures within their thresholds"
    )
    if expected is None:
        return words
    low, high = expected["interval"]
    trust = "" if expected["reliable"] else ", not to be relied on because of the drift"
    return (
        f"{words}; expected accuracy {expected['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}){trust}"
    )


def tabulate_drift(drift: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per measure, those that drifted first."""
    rows = sorted(drift["measures"], key=lambda row: row["verdict"] != "drifted")
    return [
        {
            "measure": row["measure"],
            "distance": f"{row['value']:.3f}",
            "threshold": f"{row['threshold']:.3f}",
            "verdict": row["verdict"],
            "test images": _mean(row["baseline_mean"]),
            "this run": _mean(row["mean"]),
        }
        for row in rows
    ]


def _mean(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
