"""The table of engines in `docs/bundle.md`: written by `python -m tests.engines`, between two markers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.engines.matrix import ROOT

PAGE = ROOT / "docs/bundle.md"
_BEGIN, _END = "<!-- written by make test-engines -->\n", "<!-- as far as here -->\n"
_HEAD = (
    "| engine | version | largest difference | ConvNeXtTiny, EfficientNetB0 | what it needed |",
    "|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Row:
    """The row of one engine.

    Attributes:
        title: Its name.
        version: Its version.
        difference: The largest difference over all networks of recipes and layers; None if it is too large.
        deep: The same over the two deep networks; None if the engine does not run them, or differs.
        needed: The settings that it needed.
    """

    title: str
    version: str
    difference: float | None
    deep: float | None
    needed: str


def read_table(page: Path = PAGE) -> list[Row]:
    """Read the table in a file."""
    (_, table, _) = _split(page.read_text(encoding="utf-8"))
    cells = [re.split(r" ?\| ?", line)[1:-1] for line in table.splitlines()[len(_HEAD) :]]
    return [
        Row(title, version, _number(difference), _number(deep), needed)
        for title, version, difference, deep, needed in cells
    ]


def write_table(rows: Iterable[Row], page: Path = PAGE) -> None:
    """Replace the table in a file."""
    before, _, after = _split(page.read_text(encoding="utf-8"))
    lines = [
        f"| {row.title} | {row.version} | {_cell(row.difference)} | {_cell(row.deep)} | {row.needed} |"
        for row in rows
    ]
    table = "\n".join([*_HEAD, *lines]) + "\n"
    page.write_text(before + table + after, encoding="utf-8")


def _cell(difference: float | None) -> str:
    return "no" if difference is None else f"{difference:.1e}"


def _number(cell: str) -> float | None:
    return None if cell == "no" else float(cell)


def _split(text: str) -> tuple[str, str, str]:
    """The text before the table, the table, and the text after it."""
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return text[:begin], text[begin:end], text[end:]
