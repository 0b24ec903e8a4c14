"""Probable label errors, by confident learning: Northcutt, Jiang and Chuang, 2021, arXiv:1911.00068.

It needs predictions for images that the model was not trained on. The validation and test images are such
images in every retraining, at the cost of one more prediction; errors among the training images would take
several trainings, and show when the images of a later training are split anew.
"""

from collections.abc import Iterator

import numpy as np

from pixelmill.pipeline.audit import AuditInput, Finding
from pixelmill.pipeline.config.audit import AuditSpec


def find_label_errors(given: AuditInput, spec: AuditSpec) -> Iterator[Finding]:
    """Images whose label is probably wrong, with the label that is probably right."""
    predictions = given.predictions
    if predictions is None or not len(predictions.labels):
        return
    from cleanlab.filter import find_label_issues

    # Classes that none of these images has would be an error in cleanlab.
    present, labels = np.unique(predictions.labels, return_inverse=True)
    probabilities = predictions.probabilities[:, present].astype(np.float64)
    probabilities += np.finfo(np.float32).tiny
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if len(present) < 2:
        return
    found = find_label_issues(
        labels, probabilities, return_indices_ranked_by="normalized_margin", filter_by="both", n_jobs=1
    )
    rows = _first_rows(given, [predictions.sha256[index] for index in found])
    for index in found:
        row = rows.get(predictions.sha256[index])
        if row is None:
            continue
        suggested = given.class_names[int(predictions.probabilities[index].argmax())]
        label = given.class_names[int(predictions.labels[index])]
        given_probability = float(predictions.probabilities[index, predictions.labels[index]])
        probability = float(predictions.probabilities[index].max())
        yield Finding(
            row,
            given.images["path"][row].as_py(),
            f"labelled {label} ({given_probability:.1%}), predicted {suggested} ({probability:.1%})",
            facts={"suggested_label": suggested, "probability": round(probability, 4)},
        )


def _first_rows(given: AuditInput, contents: list[str]) -> dict[str, int]:
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
