"""Probable label errors, by predictions for images that the model was not trained on.

Of the validation and test images, confident learning finds them: Northcutt, Jiang and Chuang, 2021,
arXiv:1911.00068. The training images have the probabilities of a cross-validation, which take into account
that labels may be wrong.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.audit import AuditInput, Finding, Predictions
from pixelmill.pipeline.config.audit import AuditSpec

Rows = npt.NDArray[np.int64]


def find_label_errors(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images whose label is probably wrong, with the label that is probably right; the worst first."""
    found: list[tuple[float, Finding]] = []
    if given.predictions is not None:
        found += _findings(given, given.predictions, _contradicted(given.predictions))
    if given.training_predictions is not None:
        improbable = _improbable(given.training_predictions, spec.label_error_below)
        found += _findings(given, given.training_predictions, improbable)
    for _, finding in sorted(found, key=lambda pair: pair[0]):
        yield finding


def _contradicted(predictions: Predictions) -> Rows:
    """Confident learning, as cleanlab implements it."""
    # Classes that none of these images has would be an error in cleanlab.
    present, labels = np.unique(predictions.labels, return_inverse=True)
    if len(present) < 2:
        return np.empty(0, np.int64)
    from cleanlab.filter import find_label_issues

    probabilities = predictions.probabilities[:, present].astype(np.float64)
    probabilities += np.finfo(np.float32).tiny
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    issues: Rows = find_label_issues(
        labels, probabilities, return_indices_ranked_by="normalized_margin", filter_by="both", n_jobs=1
    )
    return issues


def _improbable(predictions: Predictions, threshold: float) -> Rows:
    rows = np.arange(len(predictions.labels))
    return np.flatnonzero(predictions.probabilities[rows, predictions.labels] < threshold)


def _findings(given: AuditInput, predictions: Predictions, found: Rows) -> Iterator[tuple[float, Finding]]:
    """Each finding with its margin: the probability of the label less the largest one, -1 to 0."""
    rows = _first_rows(given, (predictions.sha256[index] for index in found))
    for index in found:
        row = rows.get(predictions.sha256[index])
        if row is None:
            continue
        probabilities, label = predictions.probabilities[index], int(predictions.labels[index])
        suggested, highest = given.class_names[int(probabilities.argmax())], float(probabilities.max())
        reason = (
            f"labelled {given.class_names[label]} ({probabilities[label]:.1%}), "
            f"predicted {suggested} ({highest:.1%})"
        )
        facts: dict[str, str | float] = {"suggested_label": suggested, "probability": round(highest, 4)}
        path = given.images["path"][row].as_py()
        yield float(probabilities[label]) - highest, Finding(row, path, reason, facts=facts)


def _first_rows(given: AuditInput, contents: Iterable[str]) -> dict[str, int]:
    """The first row of each of these contents that is in a split."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = given.images["sha256"]
    chosen = pc.and_(
        pc.is_in(column, value_set=pa.array(contents, column.type)), given.images["split"].is_valid()
    )
    rows = np.flatnonzero(chosen.to_numpy())
    pairs = zip(column.take(rows).to_pylist(), rows.tolist(), strict=True)
    return dict(reversed(list(pairs)))
