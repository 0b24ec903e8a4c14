"""The third stage: fit a recipe's network to a prepared dataset. Run it in a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from pixelmill.pipeline.artifacts import publishing
from pixelmill.pipeline.bundles import MODEL_FILE
from pixelmill.pipeline.config import Recipe, TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training import HISTORY_FILE, TrainedModel
from pixelmill.pipeline.training.backends import Device, chosen_backend, start_backend
from pixelmill.pipeline.training.callbacks import ProgressWatcher, Report, StateKeeper, TrainingProgress
from pixelmill.pipeline.training.checkpoints import holding, read_state
from pixelmill.pipeline.training.initialization import pass_channels_on
from pixelmill.pipeline.training.input_pipeline import (
    Feed,
    TrainingBatches,
    ValidationBatches,
    feeding,
    steps_per_epoch,
)
from pixelmill.pipeline.training.network import build_network
from pixelmill.pipeline.training.normalization import fuse_normalization
from pixelmill.pipeline.training.schedules import build_optimizer
from pixelmill.pipeline.training.statistics import estimate_statistics, limit_momentum
from pixelmill.pipeline.training.validation import validate

_PRECISION = {"cpu": "float32", "gpu": "mixed_float16"}
_STEPS_PER_EXECUTION = {"cpu": 1, "gpu": 16}


def tell_nobody(progress: TrainingProgress) -> None:
    """The report of a training that only the terminal watches."""


def train_model(
    dataset: PreparedDataset, recipe: Recipe, folder: Path, checkpoint: Path, report: Report = tell_nobody
) -> TrainedModel:
    """Train on the training split, watch the validation split, never see the test split.

    Args:
        dataset: The arrays.
        recipe: The network and how to fit it.
        folder: Where the model goes; must not exist yet.
        checkpoint: The file that training goes on from, if it is there, and that every epoch replaces.
        report: Told every other second how far training has come.

    Raises:
        RequestError: The device asked for is not there.
        WorkError: The loss is no number any more, or the memory is too small.
    """
    training = recipe.training
    device = start_backend(training)
    with holding(checkpoint), explaining_memory(training):
        with device.scope():
            network = compile_network(dataset, recipe, device)
            keeper = StateKeeper(network, training, checkpoint, read_state(checkpoint))
            resumed_after = len(keeper.state.history)
            if resumed_after:
                keeper.restore()
            if not keeper.is_over:
                _fit(network, dataset, training, device, keeper, report, folder)
        model = _in_float32(dataset, recipe, keeper.state.weights)
        normalization = estimate_statistics(model, dataset.split("train"), training, device.count)
        validation = validate(model, dataset.split("validation"), len(dataset.class_names), device.count)
    history = pd.DataFrame(keeper.state.history)
    facts = {
        "kind": "trained-model",
        "recipe": recipe.model_dump(mode="json"),
        "seed": training.seed,
        "dataset_fingerprint": dataset.fingerprint,
        "device": device.title,
        "resumed_after_epoch": resumed_after,
        "chosen_epoch": keeper.chosen_epoch,
        "normalization": normalization and asdict(normalization),
    }
    with publishing(folder, facts) as staging:
        model.save(staging / MODEL_FILE)
        history.to_csv(staging / HISTORY_FILE, index=False)
    return TrainedModel(
        folder=folder,
        parameters=model.count_params(),
        epochs=len(history),
        seconds=float(history["seconds"].sum()),
        device=device.title,
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        chosen_epoch=keeper.chosen_epoch,
        normalization=normalization,
    )


@contextmanager
def explaining_memory(training: TrainingSpec) -> Iterator[None]:
    """Say in one line that the device's memory is too small, and what to try.

    Raises:
        WorkError: It is.
    """
    try:
        yield
    except Exception as error:
        told = f"{type(error).__name__} {error}".lower()
        signs = ("resourceexhausted", "resource_exhausted", "outofmemory", "out of memory")
        if not any(sign in told for sign in signs):
            raise
        size = training.batch_size
        raise WorkError(
            f"the memory is too small for training.batch_size={size}",
            "a batch that fits",
            f"Try training.batch_size={max(1, size // 2)}.",
        ) from error


def compile_network(dataset: PreparedDataset, recipe: Recipe, device: Device) -> Any:
    """A recipe's network, ready to be fitted on a device."""
    import keras

    training = recipe.training
    keras.utils.set_random_seed(training.seed)
    keras.config.set_dtype_policy(
        _PRECISION[device.kind] if training.precision == "auto" else training.precision
    )
    network = build_network(recipe.model, recipe.image, len(dataset.class_names))
    if training.initialization == "dirac":
        pass_channels_on(network)
    if chosen_backend() == "tensorflow":
        fuse_normalization(network)
    # Probabilities and loss in full precision, whatever comes before them.
    network.layers[-1].dtype_policy = keras.DTypePolicy("float32")
    steps = steps_per_epoch(dataset.counts["train"], training)
    limit_momentum(network, steps)
    at_once = training.steps_per_execution
    network.compile(
        optimizer=build_optimizer(training, training.epochs * steps),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=training.jit_compile,
        steps_per_execution=_STEPS_PER_EXECUTION[device.kind] if at_once == "auto" else at_once,
    )
    return network


def _fit(
    network: Any,
    dataset: PreparedDataset,
    training: TrainingSpec,
    device: Device,
    keeper: StateKeeper,
    report: Report,
    folder: Path,
) -> None:
    classes = len(dataset.class_names)
    batches = TrainingBatches(dataset.split("train"), classes, training)
    validation = ValidationBatches(dataset.split("validation"), classes, device.count)
    history = keeper.state.history
    first = len(history)
    total = (training.epochs - first) * batches.steps * training.batch_size
    with (
        feeding(batches, batches.steps) as feed,
        feeding(validation, len(validation)) as validation_feed,
        progress("train", total, "images") as advance,
    ):
        watcher = ProgressWatcher(training, batches.steps, history, advance, report)
        network.fit(
            feed.as_keras(),
            validation_data=validation_feed.as_keras(),
            epochs=training.epochs,
            initial_epoch=first,
            shuffle=False,
            callbacks=_callbacks(feed, watcher, keeper, folder),
            verbose=0,
        )


def _callbacks(feed: Feed, watcher: ProgressWatcher, keeper: StateKeeper, folder: Path) -> list[Any]:
    import keras

    callback = keras.callbacks.LambdaCallback
    callbacks = [
        callback(on_epoch_begin=lambda epoch, logs: feed.start_epoch(epoch)),
        callback(
            on_epoch_begin=watcher.on_epoch_begin,
            on_train_batch_end=watcher.on_train_batch_end,
            on_epoch_end=watcher.on_epoch_end,
        ),
        callback(
            on_epoch_begin=keeper.on_epoch_begin,
            on_test_begin=keeper.on_test_begin,
            on_test_end=keeper.on_test_end,
            on_epoch_end=keeper.on_epoch_end,
        ),
    ]
    if find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(folder.with_name("tensorboard"), write_graph=False))
    return callbacks


def _in_float32(dataset: PreparedDataset, recipe: Recipe, weights: tuple[Any, ...]) -> Any:
    """The network to save, without what only training needs."""
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session()  # The same names for its layers in every run.
    network = build_network(recipe.model, recipe.image, len(dataset.class_names))
    network.set_weights(weights)
    return network
