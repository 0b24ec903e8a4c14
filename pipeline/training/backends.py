"""What Keras computes with: TensorFlow, or what `KERAS_BACKEND` names, on the devices asked for."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, cast, get_args

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

Backend = Literal["tensorflow", "jax", "torch"]


@dataclass(frozen=True)
class Device:
    """What training runs on.

    Attributes:
        kind: The table of what is fast knows these two.
        title: In words.
        count: How many devices share a batch.
        scope: The network is built and fitted within it.
    """

    kind: Literal["cpu", "gpu"]
    title: str
    count: int = 1
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext


def chosen_backend() -> Backend:
    """What `KERAS_BACKEND` names, and TensorFlow where it names nothing.

    Raises:
        RequestError: It names another, or one that is not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in get_args(Backend) or find_spec(name) is None:
        raise RequestError(
            f"KERAS_BACKEND is {name}",
            f"one of {', '.join(get_args(Backend))}, and installed",
            "Unset it, or install that package.",
        )
    return cast(Backend, name)


def start_backend(training: TrainingSpec) -> Device:
    """Set up what Keras computes with, before anything imports Keras.

    On the CPU the same seed gives the same weights, bit for bit.

    Raises:
        RequestError: The GPUs asked for are not there, or the backend cannot use several.
    """
    backend = chosen_backend()
    os.environ["KERAS_BACKEND"] = backend
    return _BACKENDS[backend](training)


def _start_tensorflow(training: TrainingSpec) -> Device:
    import_tensorflow()
    title = choose_device(training.device)
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        # XLA cannot have it, and TensorFlow refuses both at once.
        if training.jit_compile is not True:
            tf.config.experimental.enable_op_determinism()
        return Device("cpu", title)
    count = _gpus_wanted(training, len(gpus))
    tf.config.set_visible_devices(gpus[:count], "GPU")
    return _over_several(title, tf.config.list_logical_devices("GPU"))


def mirror(names: list[str]) -> Callable[[], AbstractContextManager[Any]]:
    """TensorFlow's way to train on several devices at once, each with a part of the batch."""
    import tensorflow as tf

    return cast(Callable[[], AbstractContextManager[Any]], tf.distribute.MirroredStrategy(names).scope)


def _over_several(title: str, devices: list[Any]) -> Device:
    if len(devices) == 1:
        return Device("gpu", title)
    count = len(devices)
    return Device("gpu", f"{count} x {title}", count, mirror([device.name for device in devices]))


def _start_jax(training: TrainingSpec) -> Device:
    import jax

    if training.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    devices = jax.devices()
    if devices[0].platform != "gpu":
        _refuse_without_gpu(training, f"JAX {jax.__version__} sees no GPU")
        return Device("cpu", "cpu (JAX)")
    count = _gpus_wanted(training, len(devices))
    import keras

    if count > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices[:count]))
    return Device("gpu", f"{count} x gpu ({devices[0].device_kind}, JAX)", count)


def _start_torch(training: TrainingSpec) -> Device:
    import torch

    torch.set_num_threads(processor_limit().count)
    torch.use_deterministic_algorithms(True, warn_only=True)
    on_gpu = training.device != "cpu" and torch.cuda.is_available()
    os.environ["KERAS_TORCH_DEVICE"] = "cuda" if on_gpu else "cpu"
    if not on_gpu:
        _refuse_without_gpu(training, f"PyTorch {torch.__version__} sees no GPU")
        return Device("cpu", "cpu (PyTorch)")
    if _gpus_wanted(training, torch.cuda.device_count()) > 1:
        raise RequestError(
            "training.gpus is more than 1, and Keras runs on PyTorch",
            "one GPU there",
            "Set training.gpus=1, or KERAS_BACKEND to tensorflow or jax.",
        )
    return Device("gpu", f"gpu ({torch.cuda.get_device_name()}, PyTorch)")


def _refuse_without_gpu(training: TrainingSpec, seen: str) -> None:
    if training.device == "gpu":
        raise RequestError(
            f"training.device is gpu, and {seen}",
            "a GPU with its driver",
            "Install the package's build for the GPU, or set training.device=cpu.",
        )


def _gpus_wanted(training: TrainingSpec, there: int) -> int:
    wanted = there if training.gpus == "all" else training.gpus
    if wanted > there:
        raise RequestError(
            f"training.gpus is {wanted}, and there are {there}", "at most these", "Set training.gpus=all."
        )
    if training.batch_size % wanted:
        raise RequestError(
            f"training.batch_size is {training.batch_size} for {wanted} GPUs",
            "a size that they share evenly",
            f"Try training.batch_size={wanted * max(1, training.batch_size // wanted)}.",
        )
    return wanted


_BACKENDS: dict[Backend, Callable[[TrainingSpec], Device]] = {
    "tensorflow": _start_tensorflow,
    "jax": _start_jax,
    "torch": _start_torch,
}
