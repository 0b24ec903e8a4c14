"""Predictions for the training images by classifiers that were not fitted to them.

The network has learned the labels of its training images, the wrong ones, too, and contradicts few of them.
Therefore linear discriminant analysis is fitted to the embeddings of four fifths of the images and predicts
the last fifth, five times. Few directions of the embeddings tell the classes apart, so only their first
principal components are used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import scratch_folder, write_array
from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.evaluation.label_noise import class_probabilities, fit_label_noise
from pixelmill.pipeline.inference import Embeddings, Probabilities
from pixelmill.pipeline.training import TrainedModel
from pixelmill.pipeline.training.prediction import embed_images

TRAINING_FILE = "training_probabilities.npy"
FOLDS = 5
FEWEST_OF_A_CLASS = 2 * FOLDS
_DIRECTIONS = 128
# More images make a fit slower, not better.
_MAX_FITTED = 50_000
_MAX_SAMPLE = 20_000
_BLOCK = 8192
_SEED = 0
Rows = npt.NDArray[np.int64]


def predict_training_images(
    model: TrainedModel, dataset: PreparedDataset, training: TrainingSpec, folder: Path
) -> Path:
    """Write out-of-sample predictions for the training images. To be run in the process of the training.

    Args:
        model: The trained model, whose embeddings are used.
        dataset: The dataset that it was trained on.
        training: Its settings: the images are embedded on the same device, in batches of the same size.
        folder: Where the file is written.

    Returns:
        The file: `.npy`, float32 [images, classes], as of `cross_validate`.
    """
    rows = dataset.rows("train", ["label", "group"])
    groups = [
        f"image {index}" if group is None else f"group {group}"
        for index, group in enumerate(rows["group"].to_pylist())
    ]
    with scratch_folder("embeddings", folder) as scratch:
        path = scratch / "embeddings.npy"
        embeddings = embed_images(model.model_path, dataset.split("train").pixels, path, training)
        labels = rows["label"].to_numpy().astype(np.int64)
        numbers = np.unique(groups, return_inverse=True)[1]
        probabilities = cross_validate(embeddings, labels, numbers, len(dataset.class_names))
    write_array(folder / TRAINING_FILE, probabilities)
    return folder / TRAINING_FILE


def cross_validate(embeddings: Embeddings, labels: Labels, groups: Rows, classes: int) -> Probabilities:
    """The probability of each class, given the label and the prediction of a classifier fitted to others.

    Args:
        embeddings: float32 [images, values], in memory or on disk.
        labels: int64 [images].
        groups: int64 [images]; no image is predicted by a classifier that was fitted to others of its group.
        classes: The number of classes.

    Returns:
        float32 [images, classes]; NaN for images that cannot be predicted: those of a class with fewer than
        10 images or with too few groups, and those whose embedding is not finite.
    """
    # Logits first, which probabilities replace: of many images and classes, memory holds them only once.
    predicted = np.full((len(labels), classes), -np.inf, np.float32)
    usable = _usable(embeddings, labels, classes)
    folds = min(FOLDS, len(np.unique(groups[usable])))
    if len(np.unique(labels[usable])) > 1 and folds > 1:
        directions = _main_directions(embeddings, usable, classes)
        for fitted, held_out in _split(labels[usable], groups[usable], folds):
            _predict(directions, labels, usable[fitted], usable[held_out], predicted)
    is_known = np.isfinite(predicted[np.arange(len(labels)), labels])
    predicted[~is_known] = np.nan
    known = np.flatnonzero(is_known)
    if len(known):
        sample = _at_most(_MAX_FITTED, known)
        noise = fit_label_noise(predicted[sample], labels[sample])
        for rows in _blocks(known):
            predicted[rows] = class_probabilities(predicted[rows], labels[rows], noise)
    return predicted


def _usable(embeddings: Embeddings, labels: Labels, classes: int) -> Rows:
    is_finite = np.empty(len(labels), bool)
    for rows in _blocks(np.arange(len(labels))):
        is_finite[rows] = np.isfinite(embeddings[rows]).all(axis=1)
    counts = np.bincount(labels[is_finite], minlength=classes)
    return np.flatnonzero(is_finite & (counts[labels] >= FEWEST_OF_A_CLASS))


def _main_directions(embeddings: Embeddings, usable: Rows, classes: int) -> Embeddings:
    """The principal components of the usable embeddings, float32 [images, components]; zero for others."""
    from sklearn.decomposition import PCA

    sample = embeddings[_at_most(_MAX_SAMPLE, usable)]
    analysis = PCA(min(max(_DIRECTIONS, 2 * classes), *sample.shape), random_state=_SEED)
    with np.errstate(divide="ignore", invalid="ignore"):  # Where all embeddings are equal.
        analysis.fit(sample)
    components = np.zeros((len(embeddings), analysis.n_components_), np.float32)
    for rows in _blocks(usable):
        components[rows] = analysis.transform(embeddings[rows])
    return components


def _split(labels: Labels, groups: Rows, folds: int) -> Iterator[tuple[Rows, Rows]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    places = np.zeros((len(labels), 1))
    if len(np.unique(groups)) < len(groups):
        grouped = StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED)
        yield from grouped.split(places, labels, groups)
    else:  # Much faster than the same with groups of one.
        yield from StratifiedKFold(folds, shuffle=True, random_state=_SEED).split(places, labels)


def _predict(
    embeddings: Embeddings, labels: Labels, fitted: Rows, held_out: Rows, logits: npt.NDArray[np.float32]
) -> None:
    """Write the logits of some images by a classifier that is fitted to others. Classes that none of these
    has are left as they are.
    """
    fitted = _at_most(_MAX_FITTED, fitted)
    # The spread of a class is measured on at least two images.
    fitted = fitted[np.bincount(labels[fitted])[labels[fitted]] > 1]
    if len(np.unique(labels[fitted])) < 2:
        return
    classifier = _fit(embeddings[fitted], labels[fitted])
    for rows in _blocks(held_out):
        scores = classifier.decision_function(embeddings[rows])
        if scores.ndim == 1:  # Of two classes, it is the logit of the second.
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        logits[rows[:, np.newaxis], classifier.classes_] = scores


def _at_most(count: int, rows: Rows) -> Rows:
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(_SEED).choice(rows, count, replace=False))


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _fit(embeddings: Embeddings, labels: Labels) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    with np.errstate(divide="ignore", invalid="ignore"):  # Where all embeddings are equal.
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(embeddings, labels)
