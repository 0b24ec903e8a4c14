"""The distribution of one measure over the test images, kept in `baseline.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_STEPS = 65
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Distribution:
    """The cumulative distribution of a measure at up to 65 of its own values.

    Attributes:
        edges: These values, ascending, float32 [values].
        below: The number of images below each, int64 [values].
        up_to: The number of images below or at each, int64 [values].
        images: All images.
        mean: The mean of the measure.
    """

    edges: Values
    below: npt.NDArray[np.int64]
    up_to: npt.NDArray[np.int64]
    images: int
    mean: float

    @classmethod
    def of(cls, values: Values) -> "Distribution":
        """The distribution of at least one value."""
        ordered = np.sort(values)
        edges = np.unique(np.quantile(ordered, np.linspace(0, 1, _STEPS), method="nearest"))
        below, up_to = np.searchsorted(ordered, edges, "left"), np.searchsorted(ordered, edges, "right")
        mean = float(ordered.mean(dtype=np.float64))
        return cls(edges, below.astype(np.int64), up_to.astype(np.int64), len(ordered), mean)

    def distance(self, values: Values) -> float:
        """The largest difference from the cumulative distribution of at least one other value, 0 to 1."""
        ordered = np.sort(values)
        below = np.searchsorted(ordered, self.edges, "left") / len(ordered)
        up_to = np.searchsorted(ordered, self.edges, "right") / len(ordered)
        differences = np.abs([below - self.below / self.images, up_to - self.up_to / self.images])
        return float(differences.max())

    def to_json(self) -> dict[str, Any]:
        """As in `baseline.json`."""
        return {
            "images": self.images,
            "mean": self.mean,
            "edges": [float(edge) for edge in self.edges],
            "below": self.below.tolist(),
            "up_to": self.up_to.tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Distribution":
        """The distribution in the result of `to_json`."""
        return cls(
            np.array(content["edges"], np.float32),
            np.array(content["below"], np.int64),
            np.array(content["up_to"], np.int64),
            int(content["images"]),
            float(content["mean"]),
        )
