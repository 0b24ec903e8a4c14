"""Training within a time budget: how many epochs fit, and a schedule that ends with the last of them."""

from collections.abc import Sequence
from functools import cache
from logging import getLogger
from statistics import median
from typing import Any

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.training import TimeBudget
from pixelmill.pipeline.training.checkpoints import Row

_RECENT_EPOCHS = 3
_log = getLogger(__name__)


def time_budget(training: TrainingSpec, history: Sequence[Row]) -> TimeBudget | None:
    """The plan after the epochs in a history; None for a recipe without a time budget.

    It depends on the history alone, so a resumed run counts the time used before.

    Args:
        training: Its `max_minutes` and `epochs`, of which there are never more.
        history: One row per epoch, with its `seconds` and `start_seconds`.
    """
    if training.max_minutes is None:
        return None
    used = sum(row["seconds"] for row in history) / 60
    return TimeBudget(training.max_minutes, used, planned_epochs(training, history))


def planned_epochs(training: TrainingSpec, history: Sequence[Row]) -> int:
    """The number of epochs that the training will have, as far as is known."""
    # The schedule ended with the last epoch of the plan: another one, if it fits, would change nothing.
    if history and _epochs_in_time(training, history[:-1]) <= len(history):
        return len(history)
    return _epochs_in_time(training, history)


def _epochs_in_time(training: TrainingSpec, history: Sequence[Row]) -> int:
    if training.max_minutes is None or not history:
        return training.epochs
    left = 60 * training.max_minutes - sum(row["seconds"] for row in history)
    # The first step of a run includes the compilation.
    each = median(row["seconds"] - row["start_seconds"] for row in history[-_RECENT_EPOCHS:])
    return min(training.epochs, len(history) + max(0, int(left // max(each, 1e-9))))


def fit_schedule(optimizer: Any, training: TrainingSpec, history: Sequence[Row], steps: int) -> None:
    """Make the learning rate schedule of an optimizer end with the last epoch that fits the time budget.

    Args:
        optimizer: From `build_optimizer`, possibly wrapped by Keras for mixed precision.
        training: The settings of the recipe.
        history: One row per epoch done.
        steps: Steps per epoch.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(inner, "schedule_pace"):
        return
    done, planned = len(history), planned_epochs(training, history)
    anchor, place, pace = (
        float(variable) for variable in (inner.schedule_anchor, inner.schedule_place, inner.schedule_pace)
    )
    now = float(inner._iterations)  # `iterations` counts updates, and schedules count steps.
    reached = place + (now - anchor) * pace
    if planned > done:
        inner.schedule_anchor.assign(now)
        inner.schedule_place.assign(reached)
        inner.schedule_pace.assign((training.epochs * steps - reached) / ((planned - done) * steps))
    elif done == 1 and done < training.epochs:
        _log.warning(
            "the first epoch took %.1f minutes of training.max_minutes=%g, so training ends after it",
            history[0]["seconds"] / 60,
            training.max_minutes or 0,
        )


def paced_schedule(schedule: Any) -> Any:
    """A Keras schedule that runs through another one at a pace that can change between epochs.

    The other schedule is at the place `place + (step - anchor) * pace`. The three are variables: a number
    would become a constant of the compiled step.
    """
    return _paced_class()(schedule)


@cache
def _paced_class() -> type:
    import keras
    from keras import ops

    class PacedSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __init__(self, schedule: Any) -> None:
            super().__init__()
            self.schedule = schedule
            self.variables = tuple(
                keras.Variable(value, dtype="float32", trainable=False, aggregation="only_first_replica")
                for value in (0.0, 0.0, 1.0)
            )

        def __call__(self, step: Any) -> Any:
            anchor, place, pace = (variable.value for variable in self.variables)
            return self.schedule(place + (ops.cast(step, "float32") - anchor) * pace)

    return PacedSchedule
