"""Softmax and cross-entropy of one image, worked through with its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelmill.pipeline.training.activations import Values

_MAX_ROWS = 10


@dataclass(frozen=True)
class SoftmaxRow:
    """One class: logit z, z - max z, its exponential, the probability p, and p - y for the label y."""

    name: str
    logit: float
    shifted: float
    exponential: float
    probability: float
    gradient: float
    is_true: bool


@dataclass(frozen=True)
class WorkedSoftmax:
    """The softmax of one image.

    Attributes:
        rows: The classes with the highest probabilities, and the true one.
        others: Number of the other classes.
        other_exponentials: The sum of their exponentials.
        total: The sum of all exponentials.
        largest: The largest logit.
        true_name: The name of the true class.
        true_probability: Its probability.
        cross_entropy: -ln of it, in nats.
        uniform: The cross-entropy of equal probabilities: ln of the number of classes.
    """

    rows: list[SoftmaxRow]
    others: int
    other_exponentials: float
    total: float
    largest: float
    true_name: str
    true_probability: float
    cross_entropy: float
    uniform: float


def work_through(logits: Values, label: int, names: Sequence[str]) -> WorkedSoftmax:
    """Compute the softmax of one image from its logits, float32 [classes], in float64.

    Raises:
        ValueError: A logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("a logit is NaN or infinite")
    shifted = logits.astype(np.float64) - float(logits.max())
    exponentials = np.exp(shifted)
    total = float(exponentials.sum())
    probabilities = exponentials / total
    order = np.argsort(-probabilities, kind="stable")
    shown = list(order[:_MAX_ROWS])
    if label not in shown:
        shown[-1] = np.int64(label)
    rows = [
        SoftmaxRow(
            name=names[at],
            logit=float(logits[at]),
            shifted=float(shifted[at]),
            exponential=float(exponentials[at]),
            probability=float(probabilities[at]),
            gradient=float(probabilities[at] - (at == label)),
            is_true=bool(at == label),
        )
        for at in shown
    ]
    return WorkedSoftmax(
        rows=rows,
        others=len(names) - len(rows),
        other_exponentials=max(0.0, total - sum(row.exponential for row in rows)),
        total=total,
        largest=float(logits.max()),
        true_name=names[label],
        true_probability=float(probabilities[label]),
        # ln of the sum minus the shifted logit: exact even where the probability rounds to zero.
        cross_entropy=float(np.log(total) - shifted[label]),
        uniform=float(np.log(len(names))),
    )
