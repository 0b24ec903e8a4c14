"""The third stage: fit a recipe's network to a prepared dataset. Run it in a process of its own."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.artifacts import publishing
from pipeline.config import Recipe, TrainingSpec
from pipeline.datasets import Images, PreparedDataset
from pipeline.errors import WorkError
from pipeline.progress import Meter, progress
from pipeline.training import HISTORY_FILE, MODEL_FILE, TrainedModel
from pipeline.training.devices import choose_device, import_tensorflow
from pipeline.training.network import build_network

_VALIDATION_BATCH = 500


def train_model(dataset: PreparedDataset, recipe: Recipe, folder: Path) -> TrainedModel:
    """Train on the training split, watch the validation split, never see the test split.

    Args:
        dataset: The arrays.
        recipe: The network and how to fit it.
        folder: Where the model goes; must not exist yet.

    Raises:
        RequestError: The device asked for is not there.
        WorkError: The loss is no number any more.
    """
    import_tensorflow()
    device = choose_device(recipe.training.device)
    import keras

    keras.utils.set_random_seed(recipe.training.seed)
    train, validation = dataset.split("train"), dataset.split("validation")
    network = build_network(recipe.model, recipe.image, len(dataset.class_names))
    network.compile(
        optimizer=_optimizer(recipe.training, _steps(recipe.training, train)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    start = time.monotonic()
    history = _fit(network, train, validation, recipe.training)
    seconds = time.monotonic() - start
    last = history.iloc[-1]
    facts = {
        "kind": "trained-model",
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.training.seed,
        "dataset_fingerprint": dataset.fingerprint,
        "device": device,
    }
    with publishing(folder, facts) as staging:
        network.save(staging / MODEL_FILE)
        history.to_csv(staging / HISTORY_FILE, index=False)
    return TrainedModel(
        folder=folder,
        parameters=network.count_params(),
        epochs=len(history),
        seconds=seconds,
        device=device,
        validation_loss=float(last["val_loss"]),
        validation_accuracy=float(last["val_accuracy"]),
    )


def _steps(training: TrainingSpec, train: Images) -> int:
    return training.epochs * math.ceil(len(train.labels) / training.batch_size)


def _optimizer(training: TrainingSpec, steps: int) -> Any:
    import keras

    rate = training.learning_rate
    warmup = round(steps * rate.warmup_fraction)
    schedules: dict[str, Callable[[], Any]] = {
        "constant": lambda: rate.peak,
        "cosine": lambda: keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=rate.peak / 10 if warmup else rate.peak,
            decay_steps=steps - warmup,
            warmup_target=rate.peak if warmup else None,
            warmup_steps=warmup,
        ),
    }
    optimizers: dict[str, Callable[[Any], Any]] = {
        "adamw": lambda learning_rate: keras.optimizers.AdamW(
            learning_rate, weight_decay=training.weight_decay
        ),
        "sgd": lambda learning_rate: keras.optimizers.SGD(
            learning_rate, momentum=0.9, nesterov=True, weight_decay=training.weight_decay or None
        ),
    }
    return optimizers[training.optimizer](schedules[rate.schedule]())


def _fit(network: Any, train: Images, validation: Images, training: TrainingSpec) -> pd.DataFrame:
    total = training.epochs * len(train.labels)
    with progress("train", total, "images") as advance:
        watcher = _watcher(advance, len(train.labels), training)
        network.fit(
            train.pixels,
            train.labels,
            batch_size=training.batch_size,
            epochs=training.epochs,
            validation_data=(validation.pixels, validation.labels),
            validation_batch_size=_VALIDATION_BATCH,
            callbacks=[watcher],
            verbose=0,
        )
    return pd.DataFrame(watcher.rows)


def _watcher(advance: Meter, images: int, training: TrainingSpec) -> Any:
    import keras

    class Watcher(keras.callbacks.Callback):  # type: ignore[misc]
        """Shows the progress, keeps a row an epoch, and stops a loss that is no number."""

        def __init__(self) -> None:
            super().__init__()
            self.rows: list[dict[str, float]] = []
            self.started = time.monotonic()
            self.note = ""

        def require_number(self, name: str, value: float, place: str = "") -> None:
            if not math.isfinite(value):
                raise WorkError(
                    f"the {name} is {value} in epoch {self.epoch}{place}",
                    "a number",
                    "Lower training.learning_rate.peak.",
                )

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.monotonic()
            self.epoch = epoch + 1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.require_number("loss", logs["loss"], f", step {batch + 1}")
            size = training.batch_size
            done = min(size, images - batch * size)
            epoch = f"epoch {self.epoch}/{training.epochs}, loss {logs['loss']:.4f}"
            advance(done, f"{epoch}{self.note}")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.require_number("validation loss", logs["val_loss"])
            self.note = f", validation accuracy {logs['val_accuracy']:.4f}"
            seconds = time.monotonic() - self.started
            self.rows.append({"epoch": epoch + 1, **logs, "seconds": seconds})

    return Watcher()
