"""The fourth stage: what a trained model is worth on images it never saw."""

from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.bundles import REPORT_FILE

PROBABILITIES_FILE = "probabilities.npy"


@dataclass(frozen=True)
class Evaluation:
    """A model's results on the test split.

    Attributes:
        folder: Holds `metrics.json`, `baseline.json` and `report/index.html`.
        probabilities: What Keras answered, float32 [images, classes], as `.npy`.
        images: How many test images there are.
        loss: Cross-entropy, in nats.
        accuracy: Share of the images it names right, 0 to 1.
    """

    folder: Path
    probabilities: Path
    images: int
    loss: float
    accuracy: float

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return self.folder / REPORT_FILE
