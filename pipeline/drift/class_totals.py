"""How many images of each class a run really holds, estimated from its predictions without labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.drift.counts import PredictionCounts
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES

_REPEATS = 200
_STEPS = 200
_BATCH_CELLS = 2_000_000
# With more classes, the repeats would take longer than scoring a small folder.
_MOST_CLASSES_WITH_INTERVALS = 300
# A class is confused now and then with classes that it was never confused with on the test images. This many
# images are added to each true class, spread evenly over the predictions.
_UNSEEN_IMAGES = 2.0

Matrix = npt.NDArray[np.float64]


def estimate_class_totals(
    baseline: Mapping[str, Any],
    counts: PredictionCounts,
    labels: Sequence[str],
    drift: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """The estimated number of images of each true class, with its 95% interval.

    Counting predictions is biased where classes are confused, the more so the more the mix of classes
    differs from that of the test images. The mix is estimated by expectation maximisation (Saerens, Latinne
    and Decaestecker, 2002, doi:10.1162/089976602753284446) from the predicted labels and how often each true
    class was predicted as each label on the test images. The interval is that of a bootstrap of both the
    test images and the run. All of it supposes that the images of a class look like its test images.

    Args:
        baseline: The content of `baseline.json`.
        counts: The predictions of the run.
        labels: The class names.
        drift: The result of `measure_drift`.

    Returns:
        `reliable`, False where the images themselves differ from the test images; and `classes`: by label,
        the images `predicted` and `estimated`, and the `interval`, null with more than 300 classes. None if
        the run has no predictions or the baseline no labels.
    """
    if not counts.images or drift is None or not baseline.get("confusion"):
        return None
    confusion = _confusion_matrix(baseline["confusion"], len(labels))
    predicted = counts.classes.astype(np.int64)
    rates = confusion / confusion.sum(axis=1, keepdims=True)
    estimated = _class_mix(rates[None], predicted[None].astype(np.float64))[0] * counts.images
    estimated = estimated.round(1)
    few = len(labels) <= _MOST_CLASSES_WITH_INTERVALS
    intervals = _intervals(confusion, predicted, estimated) if few else None
    return {
        "reliable": not any(
            row["measure"] in IMAGE_MEASURES and row["verdict"] == "drifted" for row in drift["measures"]
        ),
        "classes": {
            label: {
                "predicted": int(predicted[at]),
                "estimated": float(estimated[at]),
                "interval": None if intervals is None else intervals[at].tolist(),
            }
            for at, label in enumerate(labels)
        },
    }


def _confusion_matrix(cells: Sequence[Sequence[int]], classes: int) -> Matrix:
    """Images by true and predicted class, float64 [classes, classes], with those that were not seen."""
    matrix = np.full((classes, classes), _UNSEEN_IMAGES / classes)
    for true, predicted, images in cells:
        matrix[true, predicted] += images
    return matrix


def _class_mix(rates: Matrix, predicted: Matrix) -> Matrix:
    """The most likely mix of true classes, float64 [repeats, classes].

    Args:
        rates: The probability of each prediction for each true class, float64 [repeats, true, predicted].
        predicted: The images of each predicted class, float64 [repeats, classes].
    """
    shares = predicted / predicted.sum(axis=1, keepdims=True)
    mix = np.full(predicted.shape, 1 / predicted.shape[1])
    for _ in range(_STEPS):
        expected = (mix[:, None, :] @ rates)[:, 0, :]
        updated = mix * (rates @ (shares / expected)[:, :, None])[:, :, 0]
        change = float(np.abs(updated - mix).max())
        mix = updated
        if change < 1e-6:
            break
    return mix


def _intervals(
    confusion: Matrix, predicted: npt.NDArray[np.int64], estimated: Matrix
) -> npt.NDArray[np.int64]:
    """The 95% interval of the images of each true class, which holds the estimate, int64 [classes, 2]."""
    random = np.random.default_rng(0)
    batch = max(1, _BATCH_CELLS // confusion.size)
    found = [
        _repeat(random, confusion, predicted, min(batch, _REPEATS - start))
        for start in range(0, _REPEATS, batch)
    ]
    ends = np.quantile(np.concatenate(found), [0.025, 0.975], axis=0).T
    low, high = np.minimum(ends[:, 0], estimated), np.maximum(ends[:, 1], estimated)
    return np.stack([np.floor(low), np.ceil(high)], axis=1).astype(np.int64)


def _repeat(
    random: np.random.Generator, confusion: Matrix, predicted: npt.NDArray[np.int64], repeats: int
) -> npt.NDArray[np.int64]:
    """Plausible images of each true class in the run, int64 [repeats, classes]."""
    classes = len(predicted)
    rates = random.standard_gamma(np.broadcast_to(confusion, (repeats, classes, classes)))
    # A draw of a tiny number can be zero; no class may have a row or a column of zeros.
    rates = np.maximum(rates, 1e-12)
    rates /= rates.sum(axis=2, keepdims=True)
    runs = random.multinomial(predicted.sum(), predicted / predicted.sum(), size=repeats)
    mix = np.maximum(_class_mix(rates, runs.astype(np.float64)), 1e-12)
    # Which of the images with each predicted label belong to which true class.
    origins = (mix[:, :, None] * rates).transpose(0, 2, 1)
    origins /= origins.sum(axis=2, keepdims=True)
    drawn: npt.NDArray[np.int64] = random.multinomial(
        np.broadcast_to(predicted, (repeats, classes)), origins
    ).sum(axis=1)
    return drawn
