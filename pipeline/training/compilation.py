"""Compiling a Keras network with the loss and the optimizer of a recipe."""

from typing import Any

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.training.backends import Device
from pixelmill.pipeline.training.input_pipeline import steps_per_epoch
from pixelmill.pipeline.training.losses import build_loss, build_metrics
from pixelmill.pipeline.training.schedules import build_optimizer

_STEPS_PER_EXECUTION = {"cpu": 1, "gpu": 16}


def compile_for(network: Any, training: TrainingSpec, dataset: PreparedDataset, device: Device) -> None:
    """Compile a network for the training of a recipe, also if it was compiled before.

    Raises:
        RequestError: An epoch has fewer steps than are accumulated.
    """
    steps = steps_per_epoch(dataset.counts["train"], training)
    if training.accumulate_steps > steps:
        raise RequestError(
            f"training.accumulate_steps is {training.accumulate_steps}, and an epoch has {steps} steps",
            "at most as many",
            f"Set training.accumulate_steps={steps}, or lower training.batch_size.",
        )
    per_execution = training.steps_per_execution
    if per_execution == "auto":
        per_execution = _STEPS_PER_EXECUTION[device.kind]
    compile_with(network, training, build_optimizer(training, training.epochs * steps), per_execution)


def compile_with(network: Any, training: TrainingSpec, optimizer: Any, steps_per_execution: int) -> None:
    """Compile a network with an optimizer, and with the loss of a recipe."""
    network.compile(
        optimizer=optimizer,
        loss=build_loss(training),
        metrics=build_metrics(training),
        jit_compile=training.jit_compile,
        steps_per_execution=steps_per_execution,
    )
