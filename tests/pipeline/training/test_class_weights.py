"""Weights of the classes in the loss: what Keras gets of them, with labels that are smoothed and mixed."""

from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training.class_weights import WeightedBatches, balanced_weights, weighted
from pixelmill.pipeline.training.devices import import_tensorflow
from pixelmill.pipeline.training.input_pipeline import TrainingBatches, prefetch_batches
from tests.pipeline.training.test_batches import training

LABELS = np.repeat([0, 1, 2], [40, 8, 2])
WEIGHTS = np.array([50 / 120, 50 / 24, 50 / 6], np.float32)


def weighted_batches(**fields: Any) -> WeightedBatches:
    spec: TrainingSpec = training(class_weights="balanced", **fields)
    images = Images(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1), LABELS)
    batches = weighted(TrainingBatches(images, 3, spec), LABELS, 3, spec)
    assert isinstance(batches, WeightedBatches)
    return batches


def test_all_classes_have_the_same_share_and_the_mean_is_one() -> None:
    weights = balanced_weights(LABELS, 3)
    np.testing.assert_allclose(weights, WEIGHTS)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_a_class_without_images_takes_no_part() -> None:
    np.testing.assert_allclose(balanced_weights(np.array([0, 0, 2]), 4), [0.75, 0, 1.5, 0])


def test_without_weights_the_batches_are_what_they_were() -> None:
    spec = training()
    batches = TrainingBatches(Images(np.zeros((50, 1, 1, 1), np.uint8), LABELS), 3, spec)
    assert weighted(batches, LABELS, 3, spec) is batches


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_image_has_the_weight_of_its_class(smoothing: float) -> None:
    batches = weighted_batches(label_smoothing=smoothing)
    for index in range(len(batches)):
        _, labels, weights = batches[index]
        np.testing.assert_allclose(weights, WEIGHTS[labels.argmax(axis=1)], rtol=1e-5)


def test_a_blend_of_two_classes_lies_between_their_weights() -> None:
    batches = weighted_batches(label_smoothing=0.3, augmentation={"mixup": 1.0})
    _, labels, weights = batches[0]
    shares = (labels - 0.1) / 0.7
    np.testing.assert_allclose(weights, shares @ WEIGHTS, rtol=1e-4)
    assert not set(weights.round(3)) <= set(WEIGHTS.round(3))


def loss_in_keras() -> tuple[float, float]:
    """Of a network that always gives the same probabilities: by Keras, and worked out here."""
    import_tensorflow()
    import keras

    batches = weighted_batches(batch_size=50, epochs=1)
    network = keras.Sequential(
        [
            keras.layers.Input((1, 1, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax", kernel_initializer="zeros", bias_initializer="ones"),
        ]
    )
    network.layers[-1].set_weights([np.zeros((1, 3)), np.log([0.7, 0.2, 0.1])])
    network.compile(keras.optimizers.SGD(0.0), loss="categorical_crossentropy", metrics=["accuracy"])
    with prefetch_batches(batches, 1) as feed:
        history = network.fit(feed.as_keras(), epochs=1, verbose=0).history
    assert history["accuracy"] == pytest.approx([0.8])
    return history["loss"][0], float(-np.log([0.7, 0.2, 0.1]).mean())


def test_keras_computes_the_mean_of_the_classes_losses() -> None:
    found, expected = run_in_spawned_process(loss_in_keras)
    assert found == pytest.approx(expected, rel=1e-5)
