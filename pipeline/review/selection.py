"""Choosing images that are worth a look and differ from one another.

Each reason has an equal share of the places; what one cannot fill goes to the others. The reasons choose in
turn, and each takes its candidate with the highest product of score and novelty. The novelty of an image, 0
to 1, is its distance from the nearest one that was chosen before: that of the embeddings where the table has
them (one less the cosine, relative to the median among the candidates), or of the perceptual hashes (the
number of different bits, divided by 32, as many as two unrelated images differ in).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.review import Candidate, Picture, ReasonName, Row

_UNRELATED_BITS = 32
_SAMPLE = 512
Values = npt.NDArray[np.float64]


def divide_places(available: Mapping[ReasonName, int], count: int) -> dict[ReasonName, int]:
    """The number of images of each reason: equal shares, less what a reason has no candidates for."""
    quotas = dict.fromkeys(available, 0)
    while sum(quotas.values()) < count:
        open_reasons = [name for name, most in available.items() if quotas[name] < most]
        if not open_reasons:
            break
        for name in open_reasons[: count - sum(quotas.values())]:
            quotas[name] += 1
    return quotas


def choose(
    pools: Mapping[ReasonName, Sequence[Candidate]], pictures: Mapping[str, Picture], count: int
) -> list[tuple[Row, ReasonName]]:
    """Choose images in turn; see the module.

    Args:
        pools: The candidates of each reason.
        pictures: The picture of each candidate, by SHA-256; those without one are not chosen.
        count: The largest number of images.

    Returns:
        Rows, and the reason that chose each, in the order of the choice.
    """
    known = {name: [one for one in pool if one.row.sha256 in pictures] for name, pool in pools.items()}
    rows = {one.row.sha256: one.row for pool in known.values() for one in pool}
    places = {sha256: at for at, sha256 in enumerate(rows)}
    quotas = divide_places({name: len(pool) for name, pool in known.items()}, count)
    scores = {name: np.array([one.score for one in pool]) for name, pool in known.items()}
    members = {
        name: np.array([places[one.row.sha256] for one in pool], np.int64) for name, pool in known.items()
    }
    distances = _Distances(list(rows.values()), pictures)
    novelty, taken = np.ones(len(rows)), np.zeros(len(rows), np.bool_)
    all_rows, chosen = list(rows.values()), list[tuple[Row, ReasonName]]()
    counts = dict.fromkeys(known, 0)
    # Once all quotas are filled or their reasons have no candidates left, any reason may choose.
    for limit in (quotas, dict.fromkeys(known, count)):
        waiting = [name for name in known if len(known[name])]
        while waiting and len(chosen) < count:
            for name in tuple(waiting):
                free = ~taken[members[name]]
                if counts[name] >= limit[name] or not free.any() or len(chosen) == count:
                    waiting.remove(name)
                    continue
                worth = np.where(free, scores[name] * novelty[members[name]], -1.0)
                at = int(members[name][worth.argmax()])
                taken[at] = True
                counts[name] += 1
                chosen.append((all_rows[at], name))
                novelty = np.minimum(novelty, distances.from_image(at))
    return chosen


class _Distances:
    """Distances of images, 0 to 1, from one of them."""

    def __init__(self, rows: Sequence[Row], pictures: Mapping[str, Picture]) -> None:
        self._embeddings: Values | None = None
        vectors = [row.embedding for row in rows if row.embedding is not None]
        if rows and len(vectors) == len(rows):
            values = np.stack(vectors).astype(np.float64)
            self._embeddings = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
            some = self._embeddings[:_SAMPLE]
            apart = (1 - some @ some.T)[np.triu_indices(len(some), 1)]
            self._usual = max(float(np.median(apart)), 1e-12) if len(apart) else 1.0
        self._hashes = np.array([pictures[row.sha256].hash for row in rows], np.uint64)

    def from_image(self, at: int) -> Values:
        """The distance of every image from one, float64 [images]."""
        if self._embeddings is not None:
            apart: Values = (1 - self._embeddings @ self._embeddings[at]) / self._usual
        else:
            apart = np.bitwise_count(self._hashes ^ self._hashes[at]) / _UNRELATED_BITS
        nearest: Values = np.clip(apart, 0.0, 1.0)
        return nearest
