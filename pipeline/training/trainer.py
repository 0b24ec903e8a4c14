"""The third stage: fit a recipe's network to a prepared dataset. To be run in a separate process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from pixelmill.pipeline.artifacts import publishing, write_array
from pixelmill.pipeline.bundles import MODEL_FILE
from pixelmill.pipeline.config import Recipe, TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.training import HISTORY_FILE, SEARCH_FILE, VALIDATION_FILE, TrainedModel
from pixelmill.pipeline.training.backends import Device, chosen_backend, start_backend
from pixelmill.pipeline.training.callbacks import Report, TrainingProgress
from pixelmill.pipeline.training.checkpoints import completed_epochs, lock_checkpoint
from pixelmill.pipeline.training.compilation import compile_for
from pixelmill.pipeline.training.fitting import Fitting, fit_phases
from pixelmill.pipeline.training.initialization import initialize_dirac
from pixelmill.pipeline.training.input_pipeline import steps_per_epoch
from pixelmill.pipeline.training.network import build_network
from pixelmill.pipeline.training.normalization import fuse_normalization
from pixelmill.pipeline.training.pretrained import PretrainedWeights
from pixelmill.pipeline.training.statistics import estimate_statistics, limit_momentum
from pixelmill.pipeline.training.validation import validate
from pixelmill.pipeline.training.warm_start import StartingWeights, set_initial_weights

_PRECISION = {"cpu": "float32", "gpu": "mixed_float16"}


def ignore_progress(progress: TrainingProgress) -> None:
    """Ignore a progress report, which is the default if only the terminal shows progress."""


def train_model(
    dataset: PreparedDataset,
    recipe: Recipe,
    folder: Path,
    checkpoint: Path,
    report: Report = ignore_progress,
    start: StartingWeights | None = None,
    pretrained: PretrainedWeights | None = None,
) -> TrainedModel:
    """Fit a network on the training split and validate it on the validation split.

    Args:
        dataset: The prepared arrays; the test split is not used.
        recipe: The network and its training settings.
        folder: Where the model is written; must not exist yet.
        checkpoint: The file to resume from, if it exists; replaced after every epoch.
        report: Called with the progress every two seconds.
        start: The earlier model to start from; None for random weights.
        pretrained: The file of the weights of the recipe's application; None without one.

    Raises:
        RequestError: The requested device is not available, a file of weights does not fit, or an epoch has
            fewer steps than are accumulated.
        DownloadError: Weights of ImageNet cannot be downloaded.
        WorkError: The loss is NaN or infinite, or the device is out of memory.
    """
    device = start_backend(training := recipe.training)
    with lock_checkpoint(checkpoint), explain_out_of_memory(training):
        with device.scope():
            network = compile_network(dataset, recipe, device)
            first = recipe.model.layers[0]
            taken = set_initial_weights(network, first, start, pretrained, dataset.class_names)
            resumed_after = completed_epochs(checkpoint)
            phases = fit_phases(network, Fitting(dataset, recipe, device, checkpoint, report, folder))
        model = _rebuild_in_float32(dataset, recipe, phases.weights)
        normalization = estimate_statistics(model, dataset.split("train"), training, device.count)
        validation = validate(model, dataset.split("validation"), len(dataset.class_names), device.count)
    history = pd.DataFrame(phases.history)
    trained = TrainedModel(
        folder=folder,
        parameters=model.count_params(),
        epochs=len(history),
        seconds=float(history["seconds"].sum()),
        device=device.title,
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        chosen_epoch=phases.chosen_epoch,
        normalization=normalization,
        taken=taken,
        found_peak=phases.search.peak if phases.search else None,
        time_budget=phases.time_budget,
    )
    with publishing(folder, _describe(trained, dataset, recipe, pretrained, resumed_after)) as staging:
        model.save(staging / MODEL_FILE)
        history.to_csv(staging / HISTORY_FILE, index=False)
        if phases.search:
            curve = {"learning_rate": phases.search.rates, "loss": phases.search.losses}
            pd.DataFrame(curve).to_csv(staging / SEARCH_FILE, index=False)
        write_array(staging / VALIDATION_FILE, validation.probabilities)
    return trained


def _describe(
    trained: TrainedModel,
    dataset: PreparedDataset,
    recipe: Recipe,
    pretrained: PretrainedWeights | None,
    resumed_after: int,
) -> dict[str, object]:
    """The facts in the manifest of a trained model."""
    return {
        "kind": "trained-model",
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.training.seed,
        "dataset_fingerprint": dataset.fingerprint,
        "device": trained.device,
        "resumed_after_epoch": resumed_after,
        "chosen_epoch": trained.chosen_epoch,
        "normalization": trained.normalization and asdict(trained.normalization),
        "starting_weights": trained.taken and asdict(trained.taken),
        "found_learning_rate": trained.found_peak,
        "time_budget": trained.time_budget and asdict(trained.time_budget),
        "pretrained_weights": pretrained and {"source": pretrained.source, "sha256": pretrained.sha256},
    }


@contextmanager
def explain_out_of_memory(training: TrainingSpec) -> Iterator[None]:
    """Turn an out-of-memory error into one line with a smaller batch size to try.

    Raises:
        WorkError: The device is out of memory.
    """
    try:
        yield
    except Exception as error:
        message = f"{type(error).__name__} {error}".lower()
        signs = ("resourceexhausted", "resource_exhausted", "outofmemory", "out of memory")
        if not any(sign in message for sign in signs):
            raise
        size = training.batch_size
        raise WorkError(
            f"the device is out of memory with training.batch_size={size}",
            "a batch that fits in memory",
            f"Try training.batch_size={max(1, size // 2)}.",
        ) from error


def compile_network(dataset: PreparedDataset, recipe: Recipe, device: Device) -> Any:
    """Build and compile a recipe's network for a device."""
    import keras

    training = recipe.training
    keras.utils.set_random_seed(training.seed)
    keras.config.set_dtype_policy(
        _PRECISION[device.kind] if training.precision == "auto" else training.precision
    )
    network = build_network(recipe.model, recipe.image, len(dataset.class_names))
    if training.initialization == "dirac":
        initialize_dirac(network)
    if chosen_backend() == "tensorflow":
        fuse_normalization(network)
    # Probabilities and loss are computed in full precision, whatever the policy of the other layers.
    network.layers[-1].dtype_policy = keras.DTypePolicy("float32")
    limit_momentum(network, steps_per_epoch(dataset.counts["train"], training))
    compile_for(network, training, dataset, device)
    return network


def _rebuild_in_float32(dataset: PreparedDataset, recipe: Recipe, weights: tuple[Any, ...]) -> Any:
    """The network to save: in float32, and without the changes made for training."""
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session()  # Layers get the same names in every run.
    network = build_network(recipe.model, recipe.image, len(dataset.class_names))
    network.set_weights(weights)
    return network
