"""What runs between training steps: progress reports, stopping at a NaN loss, and checkpoints."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.progress import Meter
from pixelmill.pipeline.training.checkpoints import Row, TrainingState, write_state
from pixelmill.pipeline.training.losses import history_row
from pixelmill.pipeline.training.pacing import fit_schedule, planned_epochs

_SECONDS_BETWEEN_REPORTS = 2.0
Logs = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training run; `validation_accuracy` is that of the last complete epoch.

    `phase` comes before the epoch where there is more than one phase.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    loss: float
    validation_accuracy: float | None
    seconds_left: float
    phase: str = ""

    @property
    def share(self) -> float:
        """The completed share of training, 0 to 1."""
        return (self.epoch - 1 + self.step / self.steps) / self.epochs

    def __str__(self) -> str:
        accuracy = self.validation_accuracy
        known = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        place = f"{self.phase}epoch {self.epoch}/{self.epochs}"
        return f"{place}, step {self.step}/{self.steps}, loss {self.loss:.4f}{known}"


Report = Callable[[TrainingProgress], None]


class ProgressReporter:
    """Reports the progress of training, and stops it when the loss is NaN or infinite."""

    def __init__(
        self, training: TrainingSpec, steps: int, checkpointer: "Checkpointer", advance: Meter, report: Report
    ) -> None:
        self._training, self._steps, self._checkpointer = training, steps, checkpointer
        self._advance, self._report = advance, report
        history = checkpointer.state.history
        self._accuracy = history[-1]["val_accuracy"] if history else None
        self._epoch = self._done = self._seen = 0
        self._start = self._reported = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start counting the steps of the epoch."""
        self._epoch, self._done = epoch + 1, 0

    def on_train_batch_end(self, step: int, logs: Logs) -> None:
        """Report progress; `step` counts from 0, and may exceed the last with several steps per execution."""
        loss = float(logs["loss"])
        done = min(step + 1, self._steps)
        if not math.isfinite(loss):
            self._end(f"the loss is {loss} in epoch {self._epoch}, step {done}")
        count, self._done = (done - self._done) * self._training.batch_size, done
        self._seen += count
        now = time.monotonic()
        rate = self._seen / max(now - self._start, 1e-9)
        epochs = self._checkpointer.planned_epochs
        left = ((epochs - self._epoch + 1) * self._steps - done) * self._training.batch_size
        progress = TrainingProgress(
            self._epoch,
            epochs,
            done,
            self._steps,
            rate,
            loss,
            self._accuracy,
            left / rate,
        )
        self._advance(count, str(progress))
        if now - self._reported >= _SECONDS_BETWEEN_REPORTS or not left:
            self._reported = now
            self._report(progress)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Record the validation accuracy."""
        if not math.isfinite(logs["val_loss"]):
            self._end(f"the validation loss is {logs['val_loss']} after epoch {self._epoch}")
        self._accuracy = float(logs["val_accuracy"])

    def _end(self, received: str) -> None:
        kept = f"; the checkpoint of epoch {self._epoch - 1} is kept" if self._epoch > 1 else ""
        raise WorkError(received + kept, "a finite loss", "Lower training.learning_rate.peak.")


class Checkpointer:
    """Keeps the history, the weights of the chosen epoch, and the checkpoint to resume from.

    The chosen epoch is the last one, or with early stopping the one with the lowest validation loss. Its
    weights are those that were validated: the moving average if the recipe asks for one.
    """

    def __init__(
        self, network: Any, training: TrainingSpec, steps: int, path: Path, state: TrainingState
    ) -> None:
        self._network, self._training, self._steps, self._path = network, training, steps, path
        self.state = state
        self._raw_weights: list[Any] = []
        self._evaluated: list[Any] = []
        self._start = time.monotonic()
        self._first_step: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether all epochs are complete, or early stopping has ended training."""
        epochs = len(self.state.history)
        patience = self._training.early_stopping
        stopped = patience is not None and epochs - 1 - self._chosen(self.state.history) >= patience
        return epochs >= self.planned_epochs or (epochs > 0 and stopped)

    @property
    def planned_epochs(self) -> int:
        """The number of epochs of the training, as far as is known; early stopping may end it sooner."""
        return planned_epochs(self._training, self.state.history)

    @property
    def chosen_epoch(self) -> int:
        """The epoch whose weights are kept, counted from 1."""
        return self._chosen(self.state.history) + 1

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start timing the epoch."""
        self._start, self._first_step = time.monotonic(), None

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        """Time the first step, which in the first epoch includes the compilation."""
        if self._first_step is None:
            self._first_step = time.monotonic()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Validate with the averaged weights."""
        # The SwapEMAWeights callback of Keras swaps by adding and subtracting, which changes the last bits.
        if self._training.ema_momentum:
            variables = self._network.trainable_variables
            self._raw_weights = [_to_numpy(variable) for variable in variables]
            self._network.optimizer.finalize_variable_values(variables)
            for variable in variables:
                # On JAX the variable now shares memory with the average, which validation would free.
                variable.assign(_to_numpy(variable))

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Keep the validated weights, and restore the weights being trained."""
        self._evaluated = [_to_numpy(variable) for variable in self._network.weights]
        if self._training.ema_momentum:
            for variable, value in zip(self._network.trainable_variables, self._raw_weights, strict=True):
                variable.assign(value)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the checkpoint, and stop training if early stopping applies."""
        row = {"epoch": epoch + 1, **history_row(logs)}
        row["learning_rate"] = float(_to_numpy(self._network.optimizer.learning_rate))
        row["seconds"] = time.monotonic() - self._start
        row["start_seconds"] = (self._first_step or self._start) - self._start
        history = (*self.state.history, row)
        counts = self._chosen(history) == len(history) - 1
        fit_schedule(self._network.optimizer, self._training, history, self._steps)
        self.state = replace(
            self.state,
            network=tuple(map(_to_numpy, self._network.variables)),
            optimizer=tuple(map(_to_numpy, self._network.optimizer.variables)),
            weights=tuple(self._evaluated) if counts else self.state.weights,
            history=history,
        )
        write_state(self._path, self.state)
        self._network.stop_training = self.is_over

    def restore(self) -> None:
        """Load the checkpoint into the network and its optimizer.

        Raises:
            WorkError: The checkpoint belongs to another network.
        """
        optimizer = self._network.optimizer
        optimizer.build(self._network.trainable_variables)
        variables = [*self._network.variables, *optimizer.variables]
        values = [*self.state.network, *self.state.optimizer]
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise WorkError(
                f"{self._path} is a checkpoint of another network",
                "variables of the same shapes",
                "Remove the file.",
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _chosen(self, history: tuple[Row, ...]) -> int:
        if self._training.early_stopping is None:
            return len(history) - 1
        return min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"], default=-1)


def _to_numpy(variable: Any) -> Any:
    from keras import ops

    # On some backends the array shares memory with the variable, so it is copied.
    return ops.convert_to_numpy(variable).copy()
