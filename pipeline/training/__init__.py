"""Training a Keras network from a recipe; Keras is imported only inside functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.bundles import MODEL_FILE
from pixelmill.pipeline.training.warm_start import TakenWeights

HISTORY_FILE = "history.csv"
SEARCH_FILE = "learning_rate_search.csv"
VALIDATION_FILE = "validation_probabilities.npy"
_MAX_ACCURACY_LOSS = 0.02


@dataclass(frozen=True)
class NormalizationCheck:
    """How batch normalization affects accuracy at inference, on a sample of the training images.

    Attributes:
        images: Size of the sample.
        accuracy: Accuracy with the moving statistics stored in the model, 0 to 1.
        batch_accuracy: Accuracy with the statistics of each batch, as in training, 0 to 1.
    """

    images: int
    accuracy: float
    batch_accuracy: float

    @property
    def warning(self) -> str | None:
        """A one-line warning if accuracy drops by more than 0.02 at inference, otherwise None."""
        if self.batch_accuracy - self.accuracy <= _MAX_ACCURACY_LOSS:
            return None
        return (
            f"on {self.images:,} training images the accuracy is {self.accuracy:.4f} with the stored batch "
            f"normalization statistics and {self.batch_accuracy:.4f} with those of each batch; expected a "
            f"drop of at most {_MAX_ACCURACY_LOSS}. Raise training.batch_size, or lower "
            "training.learning_rate.peak."
        )


@dataclass(frozen=True)
class RateSearch:
    """What `training.learning_rate.find` found.

    Attributes:
        peak: The learning rate that is used as the peak of the schedule.
        rates: The learning rates that were tried, in ascending order.
        losses: The loss of the training batches with each.
    """

    peak: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class TimeBudget:
    """The use of `training.max_minutes`.

    Attributes:
        minutes: The time that the recipe gives to the training.
        used_minutes: The time of all epochs, over all runs that a checkpoint connects.
        epochs: The number of epochs planned.
    """

    minutes: float
    used_minutes: float
    epochs: int


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on disk.

    Attributes:
        folder: Holds `model.keras`, `history.csv`, which has one row per epoch, and
            `validation_probabilities.npy`, float32 [validation images, classes].
        parameters: Number of parameters, trainable and non-trainable.
        epochs: Number of epochs trained.
        seconds: Wall time of training alone.
        device: Description of the device it was trained on.
        validation_loss: Cross-entropy of the saved model on the validation split, in nats.
        validation_accuracy: Accuracy of the saved model on the validation split, 0 to 1.
        chosen_epoch: The epoch whose weights were saved, counted from 1.
        normalization: None for a model without trainable batch normalization.
        taken: What was taken from an earlier model; None if training started from random weights.
        found_peak: The peak learning rate that was found; None if the recipe gives it.
        time_budget: None without `training.max_minutes`.
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
    taken: TakenWeights | None = None
    found_peak: float | None = None
    time_budget: TimeBudget | None = None

    @property
    def model_path(self) -> Path:
        """The Keras file: uint8 images in, probabilities out."""
        return self.folder / MODEL_FILE


def read_history(model: TrainedModel) -> list[dict[str, Any]]:
    """One row per epoch: loss and accuracy on both splits, learning rate at its end, seconds, and those
    until the end of the first step.
    """
    import pandas as pd

    table = pd.read_csv(model.folder / HISTORY_FILE)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def read_search(model: TrainedModel) -> RateSearch | None:
    """The search for the learning rate; None if the recipe gives it."""
    import pandas as pd

    if model.found_peak is None:
        return None
    table = pd.read_csv(model.folder / SEARCH_FILE)
    return RateSearch(model.found_peak, tuple(table["learning_rate"]), tuple(table["loss"]))
