"""Removing what a store no longer needs: first a list, then exactly what it lists.

Never removed are the versions that an alias points to or would be rolled back to, those that the gate has not
judged, and what a running job uses; and the records: aliases, logs, ledgers of splits, and what the removed
versions were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location

Kind = Literal[
    "version",
    "run",
    "dataset",
    "catalogue",
    "tensors",
    "features",
    "checkpoint",
    "bundle copy",
    "table leftover",
    "temporary file",
]


@dataclass(frozen=True)
class PruneRequest:
    """What to look for.

    Attributes:
        store: The artifacts root.
        keep: How many of the newest versions of a model are kept, how many earlier versions each alias can be
            rolled back to, and how many of the newest runs of a model, datasets of a source and catalogues;
            at least 1.
        older_than: Only what is older is removed, except temporary files of processes that have ended.
        outputs: Folders of prediction tables, or of folders of such.

    Raises:
        RequestError: A value is out of range.
    """

    store: Location
    keep: int = 3
    older_than: timedelta = timedelta(days=14)
    outputs: Sequence[Location] = ()

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise RequestError(
                f"`keep` {self.keep}",
                "at least 1, so that an alias can be rolled back",
                "Correct the option.",
            )
        if self.older_than < timedelta(0):
            raise RequestError(f"`older_than` {self.older_than}", "0 or more", "Correct the option.")


@dataclass(frozen=True)
class Candidate:
    """Something that may be removed.

    Attributes:
        kind: What it is.
        name: Its name, such as `digits@3`.
        paths: Its files and folders, in the order in which they are removed.
        size: Its size in bytes.
        reason: Why it is no longer needed.
    """

    kind: Kind
    name: str
    paths: tuple[Location, ...]
    size: int
    reason: str
