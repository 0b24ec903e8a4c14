"""Training on other backends and several devices, and exporting the result."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.draft import write_onnx
from pixelmill.pipeline.export.keras_loader import load_network
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training import TrainedModel, trainer
from pixelmill.pipeline.training.backends import Device, chosen_backend, mirror, start_backend
from pixelmill.pipeline.training.devices import import_tensorflow
from pixelmill.pipeline.training.prediction import predict_images
from pixelmill.pipeline.training.trainer import train_model
from tests.pipeline.training.recipes import digits, small_recipe

RECIPE = small_recipe(ema_momentum=0.9, early_stopping=5, initialization="dirac")


def onnx_of(model: TrainedModel) -> bytes:
    return write_onnx(load_network(model.model_path), RECIPE.image, ExportSpec(), {})


def train_on(folder: str) -> None:
    store = Path(folder)
    model = train_model(digits(store), RECIPE, store / "run/training", store / "state.npz")
    assert model.validation_accuracy > 0.3, model
    assert model.normalization is not None
    assert model.normalization.warning is None


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_model_trained_on_another_backend_exports_on_tensorflow(backend: str, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"no {backend} here; pip install {backend}")
    program = f"from {__name__} import train_on; train_on({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    model = TrainedModel(tmp_path / "run/training", 0, 2, 0.0, backend, 0.0, 0.0, 2)
    import onnxruntime

    session = onnxruntime.InferenceSession(run_in_spawned_process(onnx_of, model))
    dataset = digits(tmp_path)
    pixels = np.asarray(dataset.split("test").pixels)
    expected = run_in_spawned_process(predict_images, model.model_path, pixels)
    (found,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(axis=1) == dataset.split("test").labels).mean() > 0.3


def start_on_two_processors(training: object) -> Device:
    import_tensorflow()
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    return Device("cpu", "2 x cpu", 2, mirror(["CPU:0", "CPU:1"]))


def train_on_two(dataset: PreparedDataset, store: Path) -> TrainedModel:
    vars(trainer)["start_backend"] = start_on_two_processors
    train_model(dataset, small_recipe(epochs=1), store / "first", store / "state.npz")
    # Training with more epochs resumes from the same checkpoint, which restores the variables of two devices.
    return train_model(dataset, small_recipe(epochs=2), store / "second", store / "state.npz")


@pytest.mark.slow
def test_several_devices_share_each_batch(tmp_path: Path) -> None:
    model = run_in_spawned_process(train_on_two, digits(tmp_path), tmp_path)
    assert model.validation_accuracy > 0.3
    assert model.device == "2 x cpu"


@pytest.mark.parametrize("name", ["theano", "jax"])
def test_a_missing_backend_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"there is {name} here")
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(RequestError, match=f"KERAS_BACKEND is {name}; expected one of tensorflow"):
        chosen_backend()
    with pytest.raises(RequestError):
        start_backend(RECIPE.training)
