"""Counts of what a listing skips, so that no file is taken for scored when it was not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelmill.pipeline.clutter import clutter_kind
from pixelmill.pipeline.display import printable

NO_EXTENSION, OTHER = "no extension", "other"
_LONGEST_EXTENSION = 16
_MOST_KINDS = 500
_SHOWN_KINDS = 5


@dataclass
class SkippedFiles:
    """Counts of the files and folders below a folder that are not scored.

    Attributes:
        extensions: Files by lower-case extension; also `no extension`, and `other` for very long extensions
            or when there are too many different ones.
        linked_folders: Links to folders, which are not followed.
        hidden: Files and folders whose name begins with a dot; a folder counts as one.
        clutter: Files and folders left by operating systems or programs, by name; a folder counts as one.
    """

    extensions: Counter[str] = field(default_factory=Counter)
    linked_folders: int = 0
    hidden: int = 0
    clutter: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """The number of files, links and folders skipped."""
        return self.extensions.total() + self.linked_folders + self.hidden + self.clutter.total()

    def count_hidden(self, name: str) -> None:
        """Count a file or folder whose name begins with a dot."""
        if not self.count_clutter(name):
            self.hidden += 1

    def count_clutter(self, name: str) -> bool:
        """Count a file or folder if its name marks it as clutter; returns whether it does."""
        kind = clutter_kind(name)
        if kind is None:
            return False
        self.clutter[kind] += 1
        return True

    def count_file(self, name: str) -> None:
        """Count a file that is skipped because of its name."""
        if self.count_clutter(name):
            return
        extension = extension_of(name)
        if extension not in self.extensions and len(self.extensions) >= _MOST_KINDS:
            extension = OTHER
        self.extensions[extension] += 1

    def describe(self) -> dict[str, Any]:
        """The counts as written to the manifest, most frequent first."""
        return {
            "extensions": dict(_by_count(self.extensions)),
            "linked_folders": self.linked_folders,
            "hidden": self.hidden,
            "clutter": dict(_by_count(self.clutter)),
        }


def extension_of(name: str) -> str:
    """The last extension of a file name, in lower case with its dot."""
    stem, _, extension = name.rpartition(".")
    if not stem or not extension:
        return NO_EXTENSION
    return f".{printable(extension.lower())}" if len(extension) <= _LONGEST_EXTENSION else OTHER


def format_skipped(kinds: Mapping[str, Any]) -> str:
    """The skipped files of a manifest as text; empty if nothing was skipped.

    For example, `40 files (.cr2 38, .txt 2), 1 linked folder, 3 hidden, clutter (@eaDir 12)`.
    """
    files, links, hidden, clutter = (
        kinds[name] for name in ("extensions", "linked_folders", "hidden", "clutter")
    )
    words = []
    if files:
        count = sum(files.values())
        words.append(f"{count:,} file{'s' * (count != 1)} ({_list(files)})")
    if links:
        words.append(f"{links:,} linked folder{'s' * (links != 1)}")
    if hidden:
        words.append(f"{hidden:,} hidden")
    if clutter:
        words.append(f"clutter ({_list(clutter)})")
    return ", ".join(words)


def _list(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in _by_count(counts)[:_SHOWN_KINDS]]
    more = len(counts) - len(shown)
    return ", ".join([*shown, *([f"{more:,} more kinds"] if more else [])])


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
