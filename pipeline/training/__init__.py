"""Training a Keras network from a recipe; Keras is imported only inside functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL_FILE = "model.keras"
HISTORY_FILE = "history.csv"


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on disk.

    Attributes:
        folder: Holds `model.keras` and `history.csv`, a row an epoch.
        parameters: All numbers the network holds, learned or kept.
        epochs: How many it was trained for.
        seconds: Wall time of the training alone.
        device: What it ran on, in words.
        validation_loss: Cross-entropy on the validation split, in nats.
        validation_accuracy: Share of the validation split it names right, 0 to 1.
    """

    folder: Path
    parameters: int
    epochs: int
    seconds: float
    device: str
    validation_loss: float
    validation_accuracy: float

    @property
    def model_path(self) -> Path:
        """The Keras file: uint8 images in, probabilities out."""
        return self.folder / MODEL_FILE


def read_history(model: TrainedModel) -> list[dict[str, Any]]:
    """A row an epoch: losses and accuracies on both splits, and seconds."""
    import pandas as pd

    table = pd.read_csv(model.folder / HISTORY_FILE)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
