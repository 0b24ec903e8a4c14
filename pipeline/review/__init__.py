"""The images of a prediction table that are most worth a person's look, and the page to label them on.

`reasons` scores the rows, `candidates` keeps the best of a table of any length, `selection` chooses among
them images that differ from one another, `page` and `label_studio` write them, and `review` does it all.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

ReasonName = Literal["changed", "contradicted", "threshold", "uncertain", "drifted"]
ReviewFormat = Literal["page", "label-studio"]
Embedding = npt.NDArray[np.float32]
IMAGES_FOLDER, THUMBNAILS_FOLDER = "images", "thumbnails"
PAGE_FILE, TASKS_FILE, CONFIG_FILE = "index.html", "tasks.json", "label_config.xml"
CORRECTIONS_FILE = "corrections.csv"
MOST_IMAGES = 5000
"""The largest number of images of a review."""


@dataclass(frozen=True)
class Row:
    """A scored row of a table.

    Attributes:
        path: As in `image_path`.
        sha256: Of the file's bytes.
        label: The top-1 class.
        class_index: Its index.
        probability: Its probability, 0 to 1.
        second_label: The second most probable class; None if the table has one class a row.
        second_probability: Its probability.
        true_label: The label of its folder; None if the table has none.
        embedding: float32 [values]; None if the table has none.
    """

    path: str
    sha256: str
    label: str
    class_index: int
    probability: float
    second_label: str | None = None
    second_probability: float | None = None
    true_label: str | None = None
    embedding: Embedding | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Candidate:
    """A row, and its score for a reason: 0 to 1, the higher the more worth a look."""

    row: Row
    score: float


@dataclass(frozen=True)
class Picture:
    """What was made of the file of a candidate.

    Attributes:
        hash: The perceptual hash, 64 bits.
        thumbnail: A JPEG or PNG file.
        format: The format of the file, as `describe_file` names it.
        width: As displayed, in pixels.
        height: The same.
    """

    hash: int
    thumbnail: bytes
    format: str
    width: int
    height: int


@dataclass(frozen=True)
class ChosenImage:
    """An image to review.

    Attributes:
        row: Its row.
        picture: Its thumbnail and size.
        reasons: Why it was chosen, in words, by reason; the first is the one whose quota it counts for.
        image: The path of the full-size copy, relative to the page.
        thumbnail: The path of the thumbnail, relative to the page.
    """

    row: Row
    picture: Picture
    reasons: dict[ReasonName, str]
    image: str = ""
    thumbnail: str = ""
