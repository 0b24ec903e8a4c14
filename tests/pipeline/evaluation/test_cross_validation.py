"""Predictions for training images that do not depend on their own labels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from pixelmill.pipeline.audit.retraining import audit_retraining
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.evaluation.cross_validation import cross_validate, predict_training_images
from pixelmill.pipeline.layers import ModelSpec
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import parse_recipe
from pixelmill.pipeline.training.backends import start_backend
from pixelmill.pipeline.training.network import build_network
from pixelmill.pipeline.training.prediction import embed_images
from pixelmill.pipeline.training.trainer import train_model
from tests.pipeline.training.recipes import small_recipe

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
Layer = dict[str, object]


def clusters(classes: int, of_each: int, values: int = 20, seed: int = 0) -> tuple[Floats, Classes]:
    """Embeddings around the mean of each class, and the true labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), of_each)
    means = rng.normal(0, 2, (classes, values))
    return (means[labels] + rng.normal(0, 1, (len(labels), values))).astype(np.float32), labels


def alone(labels: Classes) -> Classes:
    return np.arange(len(labels))


def of_labels(probabilities: Floats, labels: Classes) -> Floats:
    return probabilities[np.arange(len(labels)), labels]


@pytest.mark.parametrize("percent", [1, 3, 20])
@pytest.mark.parametrize("classes", [2, 7])
def test_wrong_labels_are_improbable_and_right_ones_are_not(classes: int, percent: int) -> None:
    embeddings, truth = clusters(classes, 300)
    labels = truth.copy()
    wrong = np.arange(5, len(labels), 100 // percent)
    labels[wrong] += np.random.default_rng(0).integers(1, classes, len(wrong))
    labels %= classes
    probabilities = cross_validate(embeddings, labels, alone(labels), classes)
    is_wrong = np.isin(np.arange(len(labels)), wrong)
    is_improbable = of_labels(probabilities, labels) < 0.5
    assert is_improbable[is_wrong].mean() > 0.9
    assert is_improbable[~is_wrong].mean() < 0.01
    assert (probabilities[is_wrong].argmax(axis=1) == truth[is_wrong]).all()


def test_images_of_one_group_do_not_vouch_for_each_other() -> None:
    """A clip whose frames all have the wrong label looks like nothing else."""
    embeddings, labels = clusters(2, 100)
    embeddings[:20] += 30 * np.eye(20, dtype=np.float32)[0]
    labels[:20] = 1
    groups = alone(labels)
    vouched = of_labels(cross_validate(embeddings, labels, groups, 2), labels)[:20]
    groups[:20] = 0
    assert vouched.min() > of_labels(cross_validate(embeddings, labels, groups, 2), labels)[:20].max()


def test_classes_of_few_images_and_broken_embeddings_have_no_prediction() -> None:
    embeddings, labels = clusters(4, 40)
    kept = np.flatnonzero((labels != 2) | (np.arange(len(labels)) % 40 < 9))
    embeddings, labels = embeddings[kept], labels[kept]
    embeddings[3, 5] = np.nan
    probabilities = cross_validate(embeddings, labels, alone(labels), 4)
    missing = np.isnan(probabilities).all(axis=1)
    assert missing.tolist() == [row == 3 or label == 2 for row, label in enumerate(labels)]


def test_embeddings_that_tell_nothing_accuse_no_label() -> None:
    labels = np.arange(300) % 3
    probabilities = cross_validate(np.ones((300, 8), np.float32), labels, alone(labels), 3)
    assert of_labels(probabilities, labels).min() > 0.5


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 90),
    st.integers(0, 9),
)
def test_a_row_is_a_distribution_or_missing(sizes: list[int], values: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    embeddings = rng.normal(0, 1, (len(labels), values)).astype(np.float32)
    numbers = rng.integers(0, groups, len(labels))
    probabilities = cross_validate(embeddings, labels, numbers, len(sizes))
    assert probabilities.shape == (len(labels), len(sizes))
    missing = np.isnan(probabilities).any(axis=1)
    np.testing.assert_allclose(probabilities[~missing].sum(axis=1), 1, atol=1e-5)


CONVOLUTION: Layer = {"layer": "convolution", "filters": 8, "kernel_size": 3, "padding": "same"}
HEAD: tuple[Layer, ...] = (
    {"layer": "global_average_pooling"},
    {"layer": "dense", "units": "classes"},
    {"layer": "softmax"},
)
# The layers of a network, and the number of values before its last convolution.
BODIES: dict[str, tuple[list[Layer], int]] = {
    "no convolution": ([{"layer": "flatten"}, *HEAD[1:]], 32 * 33 * 3),
    "the pixels, in parts of 2x2": ([CONVOLUTION, *HEAD], 16 * 17 * 3),
    "a map, in parts of 3x3": ([CONVOLUTION, CONVOLUTION, *HEAD], 11 * 11 * 8),
    "an application": ([{"layer": "application", "name": "MobileNetV2"}, *HEAD], 1 * 2 * 320),
}


def embed_each(folder: Path) -> dict[str, int]:
    """The number of values of an embedding by each network."""
    training = small_recipe().training
    start_backend(training)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 33, 3), np.uint8)
    sizes = {}
    for name, (layers, _) in BODIES.items():
        model = ModelSpec.model_validate({"layers": layers})
        path = folder / f"{name}.keras"
        build_network(model, ImageSpec(height=32, width=33, channels=3), 3).save(path)
        embeddings = embed_images(path, pixels, folder / "embeddings.npy", training)
        assert len(embeddings) == 5
        assert len(np.unique(embeddings, axis=0)) == 5
        sizes[name] = embeddings.shape[1]
    return sizes


@pytest.mark.xdist_group("network")
def test_images_are_embedded_before_the_last_convolution(tmp_path: Path) -> None:
    found = run_in_spawned_process(embed_each, tmp_path)
    assert found == {name: size for name, (_, size) in BODIES.items()}


def train_on_wrong_labels(folder: Path, wrong: set[int]) -> tuple[set[str], set[str]]:
    """The training images among the wrong ones, and the label errors that the audit names."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        shown = (label + 1) % 10 if index in wrong else label
        path = folder / f"images/{shown}/{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(path)
    content = small_recipe(epochs=8).model_dump(mode="json")
    content["dataset"] = {"source": "folder", "path": str(folder / "images")}
    recipe, store = parse_recipe(content, "noisy"), folder / "store"
    raw = download_dataset(recipe.dataset, store)
    dataset = prepare_dataset(raw, recipe, store)
    model = train_model(dataset, recipe, folder / "training", folder / "state.npz")
    predictions = predict_training_images(model, dataset, recipe.training, folder)
    audit = audit_retraining(raw, dataset, recipe, store, folder / "audit", {"train": predictions})
    trained = {name for name in dataset.names("train") if int(Path(name).stem) in wrong}
    return trained, {finding.path for finding in audit.findings["label_error"]}


@pytest.mark.xdist_group("network")
def test_wrong_labels_of_training_images_are_found(tmp_path: Path) -> None:
    wrong = set(range(7, 1797, 36))
    trained, found = run_in_spawned_process(train_on_wrong_labels, tmp_path, wrong)
    assert len(trained) > 25
    assert len(found & trained) > 0.8 * len(trained)
    assert len(found - trained) < 0.01 * 1797
