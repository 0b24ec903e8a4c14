"""The best rows of a table for each reason, found in one pass over it."""

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelmill.pipeline.predictions.arrays import matrix_of
from pixelmill.pipeline.predictions.columns import EMBEDDING
from pixelmill.pipeline.predictions.table import StoredTable
from pixelmill.pipeline.review import Candidate, Embedding, ReasonName, Row
from pixelmill.pipeline.review.blocks import scored_blocks
from pixelmill.pipeline.review.reasons import REASONS, Evidence

if TYPE_CHECKING:
    import pyarrow as pa

Pools = dict[ReasonName, list[Candidate]]


def find_candidates(table: StoredTable, evidence: Evidence, most: int) -> Pools:
    """The rows with the highest scores for each reason, the highest first; each content once.

    Args:
        table: A finished table.
        evidence: What the rows are judged by.
        most: The largest number of rows for each reason, which is what stays in memory.
    """
    pools: Pools = {name: [] for name in REASONS}
    for rows in scored_blocks(table, embeddings=True):
        for name, reason in REASONS.items():
            pool = pools[name]
            least = pool[-1].score if len(pool) == most else -np.inf
            pools[name] = _merge(pool, _best(rows, reason.score(rows, evidence), most, least), most)
    return pools


def _best(
    rows: "pa.Table", scores: "np.ndarray[Any, np.dtype[np.float64]]", most: int, least: float
) -> list[Candidate]:
    """The best rows of a block with a score above `least`, the best first."""
    known = np.flatnonzero(scores > least)  # NaN is not.
    # More than wanted, because some may have the same content.
    chosen = known[np.argsort(-scores[known], kind="stable")][: 2 * most]
    found = rows.take(chosen)
    embeddings: list[Embedding | None] = [None] * len(chosen)
    if EMBEDDING in found.column_names:
        embeddings = [*matrix_of(found[EMBEDDING]).copy()]
        found = found.drop_columns([EMBEDDING])
    return [
        Candidate(_row(values, embedding), float(scores[at]))
        for at, values, embedding in zip(chosen, found.to_pylist(), embeddings, strict=True)
    ]


def _merge(known: list[Candidate], new: list[Candidate], most: int) -> list[Candidate]:
    """The best of both; of equal contents, the one that comes first."""
    ordered = heapq.merge(known, new, key=lambda candidate: (-candidate.score, candidate.row.path))
    contents: dict[str, Candidate] = {}
    for candidate in ordered:
        contents.setdefault(candidate.row.sha256, candidate)
        if len(contents) == most:
            break
    return list(contents.values())


def _row(values: dict[str, Any], embedding: Embedding | None) -> Row:
    return Row(
        path=values["image_path"],
        sha256=values["image_sha256"],
        label=values["label"],
        class_index=values["class_index"],
        probability=values["probability"],
        second_label=values["second_label"],
        second_probability=values["second_probability"],
        true_label=values["true_label"],
        embedding=embedding,
    )
