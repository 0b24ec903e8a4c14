"""Answers as records of a fixed size, found by the SHA-256 of an image's bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.predictions.columns import Answers

Records = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]


def record_type(top_k: int) -> np.dtype[np.void]:
    """The type of one record: hash, choices, and the image's size as displayed."""
    fields: list[Any] = [
        ("sha256", "V32"),
        ("choices", "<i4", (top_k,)),
        ("probabilities", "<f4", (top_k,)),
        ("width", "<i4"),
        ("height", "<i4"),
    ]
    return np.dtype(fields)


def digests_of(answers: Answers, places: Sequence[int]) -> Records:
    """The hashes of some rows that have one, as bytes."""
    return np.frombuffer(bytes.fromhex("".join(answers.sha256[place] or "" for place in places)), "V32")


def keys_of(digests: Records) -> Keys:
    """The first eight bytes of each hash as a number, which sorts and compares fast."""
    return np.frombuffer(digests.tobytes(), ">u8")[::4].astype(np.uint64)


def records_of(answers: Answers, places: Sequence[int]) -> Records:
    """Some scored rows as records."""
    records = np.zeros(len(places), record_type(answers.choices.shape[1]))
    if len(places):
        records["sha256"] = digests_of(answers, places)
        records["choices"] = answers.choices[places]
        records["probabilities"] = answers.probabilities[places]
        records["width"] = answers.widths[places]
        records["height"] = answers.heights[places]
    return records


def fill_rows(answers: Answers, places: npt.NDArray[np.intp], records: Records) -> None:
    """Give rows what records of the same bytes say."""
    answers.choices[places] = records["choices"]
    answers.probabilities[places] = records["probabilities"]
    answers.widths[places] = records["width"]
    answers.heights[places] = records["height"]
