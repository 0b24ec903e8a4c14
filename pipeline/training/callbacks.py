"""What happens around Keras' steps: progress, the end at a loss that is no number, and a state kept."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.progress import Meter
from pixelmill.pipeline.training.checkpoints import Row, TrainingState, write_state

_SECONDS_BETWEEN_REPORTS = 2.0
Logs = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training has come; `validation_accuracy` is the last epoch's."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    loss: float
    validation_accuracy: float | None
    seconds_left: float

    @property
    def share(self) -> float:
        """What is done of the whole, 0 to 1."""
        return (self.epoch - 1 + self.step / self.steps) / self.epochs

    def __str__(self) -> str:
        accuracy = self.validation_accuracy
        known = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        return f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}, loss {self.loss:.4f}{known}"


Report = Callable[[TrainingProgress], None]


class ProgressWatcher:
    """Tells how far training has come, and ends it when the loss is no number."""

    def __init__(
        self, training: TrainingSpec, steps: int, history: tuple[Row, ...], advance: Meter, report: Report
    ) -> None:
        self._training, self._steps = training, steps
        self._advance, self._report = advance, report
        self._accuracy = history[-1]["val_accuracy"] if history else None
        self._epoch = self._done = self._seen = 0
        self._start = self._reported = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin to count the epoch's steps."""
        self._epoch, self._done = epoch + 1, 0

    def on_train_batch_end(self, step: int, logs: Logs) -> None:
        """Tell of the steps done; `step` counts from 0, and with several at once may lie beyond the last."""
        loss = float(logs["loss"])
        done = min(step + 1, self._steps)
        if not math.isfinite(loss):
            self._end(f"the loss is {loss} in epoch {self._epoch}, step {done}")
        count, self._done = (done - self._done) * self._training.batch_size, done
        self._seen += count
        now = time.monotonic()
        rate = self._seen / max(now - self._start, 1e-9)
        left = ((self._training.epochs - self._epoch + 1) * self._steps - done) * self._training.batch_size
        told = TrainingProgress(
            self._epoch,
            self._training.epochs,
            done,
            self._steps,
            rate,
            loss,
            self._accuracy,
            left / rate,
        )
        self._advance(count, str(told))
        if now - self._reported >= _SECONDS_BETWEEN_REPORTS or not left:
            self._reported = now
            self._report(told)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Take the validation's answer."""
        if not math.isfinite(logs["val_loss"]):
            self._end(f"the validation loss is {logs['val_loss']} after epoch {self._epoch}")
        self._accuracy = float(logs["val_accuracy"])

    def _end(self, received: str) -> None:
        kept = f"; the state after epoch {self._epoch - 1} is kept" if self._epoch > 1 else ""
        raise WorkError(received + kept, "a number", "Lower training.learning_rate.peak.")


class StateKeeper:
    """Keeps a row an epoch, the weights that count, and the checkpoint to go on from.

    The weights that count are those that the validation saw, averaged where the recipe says so: of the last
    epoch, or with early stopping of the epoch with the lowest validation loss.
    """

    def __init__(self, network: Any, training: TrainingSpec, path: Path, state: TrainingState | None) -> None:
        self._network, self._training, self._path = network, training, path
        self.state = state or TrainingState((), (), (), ())
        self._own: list[Any] = []
        self._evaluated: list[Any] = []
        self._start = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or early stopping says that no more are worth it."""
        epochs = len(self.state.history)
        patience = self._training.early_stopping
        stopped = patience is not None and epochs - 1 - self._chosen(self.state.history) >= patience
        return epochs >= self._training.epochs or (epochs > 0 and stopped)

    @property
    def chosen_epoch(self) -> int:
        """The epoch, from 1, whose weights count."""
        return self._chosen(self.state.history) + 1

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin to time the epoch."""
        self._start = time.monotonic()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Have the validation see the averaged weights."""
        # Keras' SwapEMAWeights swaps by adding and subtracting, which changes the last bits.
        if self._training.ema_momentum:
            variables = self._network.trainable_variables
            self._own = [_to_numpy(variable) for variable in variables]
            self._network.optimizer.finalize_variable_values(variables)
            for variable in variables:
                # On JAX it now shares the average's memory, which the validation would free.
                variable.assign(_to_numpy(variable))

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Keep what the validation saw, and go on with the weights as they were."""
        self._evaluated = [_to_numpy(variable) for variable in self._network.weights]
        if self._training.ema_momentum:
            for variable, own in zip(self._network.trainable_variables, self._own, strict=True):
                variable.assign(own)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the checkpoint, and end where early stopping says so."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["seconds"] = time.monotonic() - self._start
        history = (*self.state.history, row)
        counts = self._chosen(history) == len(history) - 1
        self.state = TrainingState(
            network=tuple(map(_to_numpy, self._network.variables)),
            optimizer=tuple(map(_to_numpy, self._network.optimizer.variables)),
            weights=tuple(self._evaluated) if counts else self.state.weights,
            history=history,
        )
        write_state(self._path, self.state)
        self._network.stop_training = self.is_over

    def restore(self) -> None:
        """Give the network and its optimiser the state that was kept.

        Raises:
            WorkError: It is another network's.
        """
        optimizer = self._network.optimizer
        optimizer.build(self._network.trainable_variables)
        variables = [*self._network.variables, *optimizer.variables]
        values = [*self.state.network, *self.state.optimizer]
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise WorkError(
                f"{self._path} holds the state of another network", "this one's", "Remove that file."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _chosen(self, history: tuple[Row, ...]) -> int:
        if self._training.early_stopping is None:
            return len(history) - 1
        return min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"], default=-1)


def _to_numpy(variable: Any) -> Any:
    from keras import ops

    # A copy: on some backends what this gives is the variable's own memory.
    return ops.convert_to_numpy(variable).copy()
