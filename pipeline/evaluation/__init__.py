"""The fourth stage: evaluate a trained model on the test split."""

from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.bundles import REPORT_FILE

PROBABILITIES_FILE = "probabilities.npy"


@dataclass(frozen=True)
class Evaluation:
    """A model's results on the test split.

    Attributes:
        folder: Holds `metrics.json`, `baseline.json` and `report/index.html`.
        probabilities: The predictions of Keras, float32 [images, classes], as `.npy`; without the temperature
            that `metrics.json` may name.
        images: Number of test images.
        loss: Cross-entropy, in nats.
        accuracy: Top-1 accuracy, 0 to 1.
    """

    folder: Path
    probabilities: Path
    images: int
    loss: float
    accuracy: float

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / REPORT_FILE
