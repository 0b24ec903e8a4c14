"""The backend of Keras: TensorFlow, or the one in `KERAS_BACKEND`, on the requested devices."""

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
    """The device or devices that training runs on.

    Attributes:
        kind: Decides the default precision and steps per execution.
        title: Description for people.
        count: Number of devices that share each batch.
        scope: Context in which the network is built and fitted.
    """

    kind: Literal["cpu", "gpu"]
    title: str
    count: int = 1
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext


def chosen_backend() -> Backend:
    """The backend in `KERAS_BACKEND`, or TensorFlow if the variable is not set.

    Raises:
        RequestError: The backend is unknown or not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in get_args(Backend) or find_spec(name) is None:
        raise RequestError(
            f"KERAS_BACKEND is {name}",
            f"one of {', '.join(get_args(Backend))}, installed in this environment",
            "Unset KERAS_BACKEND, or install the package.",
        )
    return cast(Backend, name)


def start_backend(training: TrainingSpec) -> Device:
    """Configure the backend before Keras is imported.

    On a CPU, the same seed gives the same weights, bit for bit.

    Raises:
        RequestError: The requested GPUs are not available, or the backend does not support several.
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
        # TensorFlow does not support deterministic ops together with XLA.
        if training.jit_compile is not True:
            tf.config.experimental.enable_op_determinism()
        return Device("cpu", title)
    count = _count_gpus(training, len(gpus))
    tf.config.set_visible_devices(gpus[:count], "GPU")
    return _mirror_over(title, tf.config.list_logical_devices("GPU"))


def mirror(names: list[str]) -> Callable[[], AbstractContextManager[Any]]:
    """The scope of a `tf.distribute.MirroredStrategy`, which splits each batch among several devices."""
    import tensorflow as tf

    return cast(Callable[[], AbstractContextManager[Any]], tf.distribute.MirroredStrategy(names).scope)


def _mirror_over(title: str, devices: list[Any]) -> Device:
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
    count = _count_gpus(training, len(devices))
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
    if _count_gpus(training, torch.cuda.device_count()) > 1:
        raise RequestError(
            "training.gpus is more than 1, and the Keras backend is PyTorch",
            "one GPU with this backend",
            "Set training.gpus=1, or KERAS_BACKEND to tensorflow or jax.",
        )
    return Device("gpu", f"gpu ({torch.cuda.get_device_name()}, PyTorch)")


def _refuse_without_gpu(training: TrainingSpec, seen: str) -> None:
    if training.device == "gpu":
        raise RequestError(
            f"training.device is gpu, and {seen}",
            "a GPU with its driver",
            "Install the GPU build of the package, or set training.device=cpu.",
        )


def _count_gpus(training: TrainingSpec, available: int) -> int:
    requested = available if training.gpus == "all" else training.gpus
    if requested > available:
        raise RequestError(
            f"training.gpus is {requested}, and {available} GPUs are available",
            f"at most {available}",
            "Set training.gpus=all.",
        )
    if training.batch_size % requested:
        raise RequestError(
            f"training.batch_size is {training.batch_size} for {requested} GPUs",
            "a multiple of the number of GPUs",
            f"Try training.batch_size={requested * max(1, training.batch_size // requested)}.",
        )
    return requested


_BACKENDS: dict[Backend, Callable[[TrainingSpec], Device]] = {
    "tensorflow": _start_tensorflow,
    "jax": _start_jax,
    "torch": _start_torch,
}
