"""Training a Keras network from a recipe; Keras is imported only inside functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.bundles import MODEL_FILE

HISTORY_FILE = "history.csv"
_MOST_LOST = 0.02


@dataclass(frozen=True)
class NormalizationCheck:
    """What batch normalization does at inference, on a sample of the training images.

    Attributes:
        images: How many.
        accuracy: With the statistics that the model keeps, 0 to 1.
        batch_accuracy: With the statistics of each batch, as in training, 0 to 1.
    """

    images: int
    accuracy: float
    batch_accuracy: float

    @property
    def warning(self) -> str | None:
        """One line where the model loses more than 0.02 at inference; None where it does not."""
        if self.batch_accuracy - self.accuracy <= _MOST_LOST:
            return None
        return (
            f"on {self.images:,} training images the accuracy is {self.accuracy:.4f} at inference and "
            f"{self.batch_accuracy:.4f} with the statistics of each batch; expected at most {_MOST_LOST} "
            "less. Raise training.batch_size, or lower training.learning_rate.peak."
        )


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on disk.

    Attributes:
        folder: Holds `model.keras` and `history.csv`, a row an epoch.
        parameters: All numbers the network holds, learned or kept.
        epochs: How many it was trained for.
        seconds: Wall time of the training alone.
        device: What it ran on, in words.
        validation_loss: Cross-entropy on the validation split, in nats, of the model as it is saved.
        validation_accuracy: Share of the validation split it names right, 0 to 1.
        chosen_epoch: The epoch, from 1, whose weights it has.
        normalization: None for a model without a batch normalization that trains.
    """

    folder: Path
    parameters: int
    epochs: int
    seconds: float
    device: str
    validation_loss: float
    validation_accuracy: float
    chosen_epoch: int
    normalization: NormalizationCheck | None = None

    @property
    def model_path(self) -> Path:
        """The Keras file: uint8 images in, probabilities out."""
        return self.folder / MODEL_FILE


def read_history(model: TrainedModel) -> list[dict[str, Any]]:
    """A row an epoch: losses and accuracies on both splits, and seconds."""
    import pandas as pd

    table = pd.read_csv(model.folder / HISTORY_FILE)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
