"""Forgetting images: where a store holds them, and keeping them out of later models.

`holders` finds them, `datasets.exclusions` keeps the list.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["split", "version", "permanent check", "production sample", "table"]


@dataclass(frozen=True)
class Holding:
    """A place that holds an image, or names it.

    Attributes:
        sha256: SHA-256 of the image's content, in hexadecimal.
        kind: The kind of place. A version was trained, validated or tested on the image, a table has a row
            of it.
        name: The place: a split of a prepared dataset, `name@version`, a model, or the folder of a table.
        detail: Which of it: the path in the dataset or the table, the version's split, or a file.
    """

    sha256: str
    kind: Kind
    name: str
    detail: str


@dataclass(frozen=True)
class SearchResult:
    """Where images are held, and where that could not be found out.

    Attributes:
        holdings: The places, in the order in which data flows: splits, versions, checks, samples, tables.
        not_searched: A line for each place that could not be searched, with the reason.
        tables: Number of tables that were searched.
    """

    holdings: tuple[Holding, ...]
    not_searched: tuple[str, ...]
    tables: int
