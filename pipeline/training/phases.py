"""The two phases of transfer learning: first the head on features computed once, then all layers."""

from dataclasses import dataclass, replace
from typing import Any

from pixelmill.pipeline.config import AugmentationSpec, TrainingSpec
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.layers import Layer, ModelSpec
from pixelmill.pipeline.training import RateSearch, TimeBudget
from pixelmill.pipeline.training.callbacks import Checkpointer, Report
from pixelmill.pipeline.training.checkpoints import Arrays, Row, TrainingState
from pixelmill.pipeline.training.pacing import time_budget

_POOLING = ("average_pooling", "global_average_pooling", "global_max_pooling", "max_pooling")
_WITHOUT_WEIGHTS = ("activation", "flatten", *_POOLING)
"""Layers that give the same output for the same input, so that they may come before the features."""


def count_body_layers(model: ModelSpec) -> int:
    """The number of layers whose output the first phase is trained on: the application, and pooling."""
    after = model.layers[1:-2]
    counted = next((at for at, layer in enumerate(after) if not _is_fixed(layer)), len(after))
    return 1 + counted


def split_network(network: Any, layers: int) -> tuple[Any, Any]:
    """Two Keras models that share the layers of a network: from images to features, and to probabilities.

    Args:
        network: A Keras model built from a recipe.
        layers: The number of layers of the recipe that come before the features.
    """
    import keras

    first = next(layer for layer in network.layers if layer.name.startswith(f"{layers}_"))
    return keras.Model(network.inputs[0], first.input), keras.Model(first.input, network.outputs[0])


def head_training(training: TrainingSpec) -> TrainingSpec:
    """The settings of the first phase: its own epochs and rate, and no augmentation, as features are fixed.

    Raises:
        ValueError: There is only one phase.
    """
    if training.head is None:
        raise ValueError("training.head is null")
    rate = training.learning_rate.model_copy(update={"peak": training.head.peak, "find": False})
    changed = {
        "epochs": training.head.epochs,
        "learning_rate": rate,
        "augmentation": AugmentationSpec(),
        "ema_momentum": 0.0,
        "max_minutes": None,
    }
    return training.model_copy(update=changed)


def assign_weights(network: Any, weights: Any) -> None:
    """Set the weights of a model from those of a checkpoint.

    Raises:
        WorkError: There are none, or they are of another network.
    """
    if [tuple(each.shape) for each in network.weights] != [value.shape for value in weights]:
        raise WorkError("a checkpoint of another network", "weights of the same shapes", "Remove the file.")
    network.set_weights(weights)


@dataclass(frozen=True)
class TrainedPhases:
    """The result of all phases.

    Attributes:
        history: One row per epoch, of both phases, with epochs counted from 1 throughout.
        chosen_epoch: The epoch whose weights are kept, counted from 1.
        weights: The weights of the network.
        search: The learning rate that was found for the second phase, or the only one; None if the recipe
            gives it.
        time_budget: The plan for that phase; None without a time budget.
    """

    history: tuple[Row, ...]
    chosen_epoch: int
    weights: Arrays
    search: RateSearch | None = None
    time_budget: TimeBudget | None = None


def choose_weights(
    head: TrainingState | None, before: Arrays, second: Checkpointer, training: TrainingSpec
) -> TrainedPhases:
    """Join the phases. With early stopping, the first one counts if the second did not improve on it.

    Args:
        head: The state after the first phase; None if there was none.
        before: The weights of the network after it.
        second: The checkpointer of the second phase, or the only one.
        training: The training settings.
    """
    first = () if head is None else head.history
    state = second.state
    rows = (*first, *({**row, "epoch": row["epoch"] + len(first)} for row in state.history))
    budget = time_budget(training, state.history)
    if training.early_stopping is not None and _lowest_loss(first) <= _lowest_loss(state.history):
        chosen = min(range(len(first)), key=lambda at: first[at]["val_loss"])
        return TrainedPhases(rows, chosen + 1, before, state.search, budget)
    return TrainedPhases(rows, len(first) + second.chosen_epoch, state.weights, state.search, budget)


def head_report(report: Report) -> Report:
    """A function that reports the progress of the first phase as such."""
    return lambda progress: report(replace(progress, phase="head, "))


def _lowest_loss(history: tuple[Row, ...]) -> float:
    return min((row["val_loss"] for row in history), default=float("inf"))


def _is_fixed(layer: Layer) -> bool:
    return layer.layer in _WITHOUT_WEIGHTS
