"""Fitting of a network in one phase or two, each with a checkpoint of its own."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import Recipe, TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training.backends import Device
from pixelmill.pipeline.training.callbacks import Checkpointer, ProgressReporter, Report
from pixelmill.pipeline.training.checkpoints import TrainingState, head_path, read_state
from pixelmill.pipeline.training.class_weights import weighted
from pixelmill.pipeline.training.compilation import compile_for
from pixelmill.pipeline.training.features import compute_features
from pixelmill.pipeline.training.input_pipeline import (
    BatchPrefetcher,
    TrainingBatches,
    TrainingImages,
    ValidationBatches,
    prefetch_batches,
    steps_per_epoch,
)
from pixelmill.pipeline.training.phases import (
    TrainedPhases,
    assign_weights,
    choose_weights,
    count_body_layers,
    head_report,
    head_training,
    split_network,
)
from pixelmill.pipeline.training.rate_search import find_rate


@dataclass(frozen=True)
class Fitting:
    """What a network is fitted on, and with.

    Attributes:
        dataset: Its training and validation splits are used.
        recipe: The network and its training settings.
        device: What it was compiled for.
        checkpoint: The file to resume from, if it exists; replaced after every epoch.
        report: Called with the progress.
        folder: That of the model. TensorBoard's logs are written beside it, if TensorBoard is installed.
    """

    dataset: PreparedDataset
    recipe: Recipe
    device: Device
    checkpoint: Path
    report: Report
    folder: Path

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.dataset.class_names)

    def for_head(self) -> "Fitting":
        """The same for the first of two phases."""
        return replace(
            self,
            checkpoint=head_path(self.checkpoint),
            report=head_report(self.report),
            folder=self.folder.with_name("head") / self.folder.name,
        )


def fit_phases(network: Any, fitting: Fitting) -> TrainedPhases:
    """Train the head, if the recipe says so, then all layers, from the checkpoint where there is one.

    Args:
        network: A Keras model, compiled with the weights that training starts from.
        fitting: What it is fitted on.
    """
    dataset, training = fitting.dataset, fitting.recipe.training
    head = _fit_head(network, fitting.for_head())
    before = tuple(network.get_weights()) if head else ()
    state = _read_state(fitting)
    if training.learning_rate.find:
        training, state = find_rate(network, dataset, training, fitting.device, state)
    images = TrainingImages(dataset.split("train"), dataset.split("validation"))
    whole = _restore(network, training, state, fitting)
    if not whole.is_over:
        _fit(network, images, training, whole, fitting)
    return choose_weights(head, before, whole, training)


def _fit_head(network: Any, fitting: Fitting) -> TrainingState | None:
    """Train only the layers after the application, if the recipe says so, on its output for each image."""
    recipe = fitting.recipe
    if recipe.training.head is None:
        return None
    training = head_training(recipe.training)
    layers = count_body_layers(recipe.model)
    body, head = split_network(network, layers)
    compile_for(head, training, fitting.dataset, fitting.device)
    checkpointer = _restore(head, training, _read_state(fitting), fitting)
    if not checkpointer.is_over:
        images = compute_features(body, layers, fitting.dataset, recipe)
        _fit(head, images, training, checkpointer, fitting)
    assign_weights(head, checkpointer.state.weights)
    return checkpointer.state


def _read_state(fitting: Fitting) -> TrainingState:
    return read_state(fitting.checkpoint) or TrainingState((), (), (), ())


def _restore(network: Any, training: TrainingSpec, state: TrainingState, fitting: Fitting) -> Checkpointer:
    """The checkpointer of a phase, with the network as it was after the last complete epoch, if any."""
    steps = steps_per_epoch(fitting.dataset.counts["train"], training)
    checkpointer = Checkpointer(network, training, steps, fitting.checkpoint, state)
    if state.history:
        checkpointer.restore()
    return checkpointer


def _fit(
    network: Any,
    images: TrainingImages,
    training: TrainingSpec,
    checkpointer: Checkpointer,
    fitting: Fitting,
) -> None:
    batches = TrainingBatches(images.train, fitting.classes, training)
    validation = ValidationBatches(images.validation, fitting.classes, fitting.device.count)
    weighted_batches = weighted(batches, images.train.labels, fitting.classes, training)
    first = len(checkpointer.state.history)
    total = (training.epochs - first) * batches.steps * training.batch_size
    with (
        prefetch_batches(weighted_batches, batches.steps) as feed,
        prefetch_batches(validation, len(validation)) as validation_feed,
        progress("train", total, "images") as advance,
    ):
        reporter = ProgressReporter(training, batches.steps, checkpointer, advance, fitting.report)
        network.fit(
            feed.as_keras(),
            validation_data=validation_feed.as_keras(),
            epochs=training.epochs,
            initial_epoch=first,
            shuffle=False,
            callbacks=_callbacks(feed, reporter, checkpointer, fitting.folder),
            verbose=0,
        )


def _callbacks(
    feed: BatchPrefetcher, reporter: ProgressReporter, checkpointer: Checkpointer, folder: Path
) -> list[Any]:
    import keras

    callback = keras.callbacks.LambdaCallback
    callbacks = [
        callback(on_epoch_begin=lambda epoch, logs: feed.start_epoch(epoch)),
        callback(
            on_epoch_begin=reporter.on_epoch_begin,
            on_train_batch_end=reporter.on_train_batch_end,
            on_epoch_end=reporter.on_epoch_end,
        ),
        callback(
            on_epoch_begin=checkpointer.on_epoch_begin,
            on_train_batch_end=checkpointer.on_train_batch_end,
            on_test_begin=checkpointer.on_test_begin,
            on_test_end=checkpointer.on_test_end,
            on_epoch_end=checkpointer.on_epoch_end,
        ),
    ]
    if find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(folder.with_name("tensorboard"), write_graph=False))
    return callbacks
