"""The networks of keras.applications: their stated properties match what Keras builds and exports."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import Probabilities, load_session
from pixelmill.pipeline.layers import ModelSpec, summarize_layers
from pixelmill.pipeline.layers.application import (
    APPLICATIONS,
    INCLUDE_PREPROCESSING,
    SCALINGS,
    Application,
    ApplicationName,
)
from pixelmill.pipeline.processes import run_in_spawned_process

CLASSES = 3
NAMES = get_args(ApplicationName)
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAMP = np.arange(2 * 128 * 3, dtype=np.uint8).reshape(1, 2, 128, 3)
pytestmark = pytest.mark.xdist_group("network")


def model(name: str, **settings: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "layers": [
                {"layer": "application", "name": name, **settings},
                {"layer": "global_average_pooling"},
                {"layer": "dense", "units": "classes"},
                {"layer": "softmax"},
            ]
        }
    )


def image(side: int) -> ImageSpec:
    return ImageSpec(height=side, width=side + 1, channels=3)


def start() -> Any:
    """Start Keras on the processors of this process."""
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    return keras


def inner_network(keras: Any, network: Any) -> Any:
    """The application within a network."""
    (inner,) = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    return inner


@dataclass(frozen=True)
class KerasReference:
    """Results from Keras.

    Attributes:
        scaled: By application: the ramp as we scale it, and as Keras's own function does.
        parameters: Of a network with an application that was given weights and frozen layers.
        trainable: Of the application's layers.
        same: Whether its weights are those of each file.
        refusals: The error for each file that does not fit.
    """

    scaled: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    parameters: int
    trainable: list[bool]
    same: dict[str, bool]
    refusals: dict[str, str]


def build_reference(folder: Path) -> KerasReference:
    """Scale the ramp for every application; build one from the saved weights of another, a part frozen."""
    keras = start()
    from pixelmill.pipeline.training.network import build_network
    from pixelmill.pipeline.training.normalization import fuse_normalization
    from pixelmill.pipeline.training.pretrained import PretrainedWeights, load_pretrained

    scaled = {}
    for name in NAMES:
        ours: Any = RAMP
        for layer in SCALINGS[APPLICATIONS[name].scaling](keras):
            ours = layer(ours)
        module = sys.modules[getattr(keras.applications, name).__module__]
        scaled[name] = np.asarray(ours), np.asarray(module.preprocess_input(RAMP.astype(np.float32)))
    spec = image(32)
    known = build_network(model("MobileNet"), spec, CLASSES)
    network = build_network(model("MobileNet", frozen_layers=10), spec, CLASSES)
    fuse_normalization(network)  # As in a training.
    before = inner_network(keras, known).get_weights()
    same, refusals = {}, {}
    for name, path in write_weights(keras, known, folder).items():
        inner = inner_network(keras, network)
        inner.set_weights([np.zeros_like(values) for values in before])
        file = PretrainedWeights(path, "0" * 64, name)
        try:
            first = model("MobileNet", weights=name).layers[0]
            assert isinstance(first, Application)
            load_pretrained(network, first, file)
        except RequestError as error:
            refusals[name] = str(error)
        same[name] = all(np.array_equal(*pair) for pair in zip(before, inner.get_weights(), strict=True))
    return KerasReference(
        scaled,
        network.count_params(),
        [layer.trainable for layer in inner_network(keras, network).layers],
        same,
        refusals,
    )


def write_weights(keras: Any, network: Any, folder: Path) -> dict[str, Path]:
    """The weights of an application in every form that Keras saves, and files that do not fit."""
    inner, side = inner_network(keras, network), network.input_shape[1]
    # Keras 2 named a layer's weights as it does now, and nested models are one group in its files.
    whole = keras.Model(network.inputs, keras.layers.Dense(7, name="other")(network.layers[-3].output))
    saved = {
        "weights": (inner.save_weights, "known.weights.h5"),
        "whole model, HDF5": (whole.save, "whole.h5"),
        "application, HDF5": (inner.save, "application.h5"),
        "whole model": (whole.save, "whole.keras"),
        "application": (inner.save, "application.keras"),
    }
    paths = {name: folder / file for name, (_, file) in saved.items()}
    for name, (save, _) in saved.items():
        save(paths[name])
    # As in the cache of downloads, where names have no suffix.
    for name in ("weights", "whole model"):
        paths[f"{name}, renamed"] = paths[name].rename(folder / f"{len(name):064x}")
        paths[name] = paths[f"{name}, renamed"]
    other = keras.applications.MobileNet(
        include_top=False, weights=None, alpha=0.25, input_shape=(side, side, 3)
    )
    other.save(folder / "narrow.keras")
    (folder / "no.weights.h5").write_bytes(b"no weights")
    return paths | {"narrow": folder / "narrow.keras", "damaged": folder / "no.weights.h5"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> KerasReference:
    return run_in_spawned_process(build_reference, tmp_path_factory.mktemp("applications"))


def test_pixels_are_scaled_as_by_the_authors(reference: KerasReference) -> None:
    for name, (ours, theirs) in reference.scaled.items():
        # Images left unchanged there are scaled inside the network, which other tests check.
        is_inside = name.startswith((*INCLUDE_PREPROCESSING, "EfficientNetB"))
        assert np.array_equal(theirs, RAMP) == is_inside
        if not is_inside:
            assert np.abs(ours - theirs).max() < 1e-4, name


def test_weights_come_from_a_file_and_frozen_layers_stay(reference: KerasReference) -> None:
    rows = summarize_layers(model("MobileNet"), image(32), CLASSES)
    assert reference.parameters == sum(row.parameters for row in rows)
    assert reference.trainable == [False] * 10 + [True] * (APPLICATIONS["MobileNet"].layers - 10)
    wrong = {"narrow", "damaged"}
    assert {name for name, same in reference.same.items() if not same} == wrong
    assert set(reference.refusals) == wrong
    assert "of another shape, such as conv1" in reference.refusals["narrow"]
    assert all("Choose another file" in text for text in reference.refusals.values())


def load_efficientnet(folder: Path) -> dict[str, float]:
    """For each way to get pretrained weights: the relative difference from the network that Keras loads."""
    keras = start()
    from keras.src.utils import file_utils

    from pixelmill.pipeline.training.network import build_network
    from pixelmill.pipeline.training.pretrained import PretrainedWeights, load_pretrained

    def make(weights: str | None) -> Any:
        shape = (32, 33, 3)
        return keras.applications.EfficientNetB0(include_top=False, weights=weights, input_shape=shape)

    published = make(None)
    (normalization,) = [each for each in published.layers if isinstance(each, keras.layers.Normalization)]
    # What the published file holds: the deviations in place of the variances, for which Keras makes up.
    normalization.set_weights([np.array(MEANS), np.array(DEVIATIONS), np.array(0)])
    published.save(folder / "published.h5")
    file_utils.get_file = lambda *_, **__: str(folder / "published.h5")
    theirs = make("imagenet")
    theirs.save(folder / "saved.h5")
    theirs.save(folder / "saved.keras")
    theirs.save_weights(folder / "saved.weights.h5")
    expected, found = theirs.predict_on_batch(noise(32).astype(np.float32)), {}
    ours = build_network(model("EfficientNetB0"), image(32), CLASSES)
    inner = inner_network(keras, ours)
    for source in ("imagenet", "published.h5", "saved.h5", "saved.keras", "saved.weights.h5"):
        for each in inner.layers:
            if not isinstance(each, keras.layers.Normalization):
                each.set_weights([np.zeros_like(values) for values in each.get_weights()])
        layer = model("EfficientNetB0", weights=source).layers[0]
        assert isinstance(layer, Application)
        file = None if source == "imagenet" else PretrainedWeights(folder / source, "0" * 64, source)
        load_pretrained(ours, layer, file)
        found[source] = relative_difference(keras, ours, expected)
    ours.save(folder / "ours.keras")
    again = keras.saving.load_model(folder / "ours.keras", compile=False)
    found["saved and loaded"] = relative_difference(keras, again, expected)
    return found


def relative_difference(keras: Any, network: Any, expected: npt.NDArray[np.float32]) -> float:
    """Of the features, which are the input of the pooling, to the largest one that is expected."""
    features = keras.Model(network.inputs, network.layers[-3].input).predict_on_batch(noise(32))
    return float(np.abs(features - expected).max() / np.abs(expected).max())


def test_an_efficientnet_predicts_as_the_one_that_keras_loads(tmp_path: Path) -> None:
    found = run_in_spawned_process(load_efficientnet, tmp_path)
    assert max(found.values()) < 1e-4, found


def measure(name: ApplicationName, folder: Path) -> tuple[list[tuple[int, ...]], int, int, Probabilities]:
    """Build an application at several sizes, and export the smallest."""
    keras = start()
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.keras_loader import load_network
    from pixelmill.pipeline.training.network import build_network

    outputs = []
    for side in sizes(name):
        network = build_network(model(name, frozen_layers="all"), image(side), CLASSES)
        inner = inner_network(keras, network)
        outputs.append(tuple(inner.output.shape[1:]))
        if side == sizes(name)[0]:
            network.save(folder / "model.keras")
            content = write_onnx(load_network(folder / "model.keras"), image(side), ExportSpec(), {})
            (folder / "model.onnx").write_bytes(content)
            predictions = network.predict(noise(side), verbose=0)
            require_restored(network, name, folder / "model.keras")
        keras.backend.clear_session()
    if name.startswith(INCLUDE_PREPROCESSING):
        compare_scaling(keras, name)
    return outputs, inner.count_params(), len(inner.layers), predictions


def require_restored(network: Any, name: ApplicationName, path: Path) -> None:
    """A model of ours gives its weights to an application whose layers Keras numbered differently."""
    from pixelmill.pipeline.training.network import build_network
    from pixelmill.pipeline.training.pretrained import PretrainedWeights, load_pretrained, nested_network

    again = build_network(model(name), image(sizes(name)[0]), CLASSES)
    first = model(name, weights=str(path)).layers[0]
    assert isinstance(first, Application)
    load_pretrained(again, first, PretrainedWeights(path, "0" * 64, str(path)))
    pairs = zip(nested_network(network).get_weights(), nested_network(again).get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def compare_scaling(keras: Any, name: ApplicationName) -> None:
    """Compare our scaling with the layers that the application would use."""
    own = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3))
    theirs: Any = RAMP
    for layer in own.layers:
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
            theirs = layer(theirs)
    ours: Any = RAMP
    for layer in SCALINGS[APPLICATIONS[name].scaling](keras):
        ours = layer(ours)
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() < 1e-4


def sizes(name: ApplicationName) -> list[int]:
    smallest = APPLICATIONS[name].min_side
    return [smallest, smallest + 15, 128]


def noise(side: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, side, side + 1, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_properties_of_an_application_match_keras_and_the_export(
    name: ApplicationName, tmp_path: Path
) -> None:
    outputs, parameters, layers, predictions = run_in_spawned_process(measure, name, tmp_path)
    facts = APPLICATIONS[name]
    described = [summarize_layers(model(name), image(side), CLASSES)[0] for side in sizes(name)]
    assert outputs == [row.output for row in described]
    assert (parameters, layers) == (facts.parameters, facts.layers)
    side = sizes(name)[0]
    session, pixels = load_session(tmp_path / "model.onnx"), noise(side)
    alone = np.concatenate([session.probabilities(pixel[np.newaxis]) for pixel in pixels])
    assert np.abs(alone - predictions).max() < 1e-5
    assert np.abs(session.probabilities(pixels) - predictions).max() < 1e-5
