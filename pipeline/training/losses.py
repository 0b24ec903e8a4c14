"""The training loss of a recipe."""

from collections.abc import Mapping
from typing import Any

from pixelmill.pipeline.config import TrainingSpec

_CROSS_ENTROPY = "cross_entropy"


def build_loss(training: TrainingSpec) -> Any:
    """The Keras loss: of probabilities against soft labels, both [images, classes]."""
    import keras

    if training.loss == "cross_entropy":
        return "categorical_crossentropy"
    # Lin et al., 2017, arXiv:1708.02002, for each class and weighted by its label, which may be smoothed or
    # mixed: -sum y (1 - p)^gamma log p. Keras would scale it by 0.25.
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=training.focal_gamma)


def build_metrics(training: TrainingSpec) -> list[Any]:
    """The Keras metrics; with another loss than cross-entropy, validation needs that as a metric."""
    import keras

    if training.loss == "cross_entropy":
        return ["accuracy"]
    return ["accuracy", keras.metrics.CategoricalCrossentropy(name=_CROSS_ENTROPY)]


def history_row(logs: Mapping[str, Any]) -> dict[str, float]:
    """What Keras measured in an epoch, with the cross-entropy as `val_loss`, whatever the training loss.

    So early stopping, reports and recipes with different losses can be compared.
    """
    row = {name: float(value) for name, value in logs.items()}
    row["val_loss"] = row.pop(f"val_{_CROSS_ENTROPY}", row["val_loss"])
    row.pop(_CROSS_ENTROPY, None)
    return row
