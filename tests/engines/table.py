"""The table of engines in `docs/bundle.md`: written by `python -m tests.engines`, between two markers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.engines.matrix import ROOT

PAGE = ROOT / "docs/bundle.md"
_BEGIN, _END = "<!-- written by make test-engines -->\n", "<!-- as far as here -->\n"
_HEAD = ("| engine | version | largest difference | what it needed |", "|---|---|---|---|")


@dataclass(frozen=True)
class Row:
    """The row of one engine; `difference` is the largest over all networks and images."""

    title: str
    version: str
    difference: float
    needed: str


def read_table(page: Path = PAGE) -> list[Row]:
    """Read the table in a file."""
    (_, table, _) = _split(page.read_text(encoding="utf-8"))
    cells = [re.split(r" ?\| ?", line)[1:-1] for line in table.splitlines()[len(_HEAD) :]]
    return [Row(title, version, float(number), needed) for title, version, number, needed in cells]


def write_table(rows: Iterable[Row], page: Path = PAGE) -> None:
    """Replace the table in a file."""
    before, _, after = _split(page.read_text(encoding="utf-8"))
    lines = [f"| {row.title} | {row.version} | {row.difference:.1e} | {row.needed} |" for row in rows]
    table = "\n".join([*_HEAD, *lines]) + "\n"
    page.write_text(before + table + after, encoding="utf-8")


def _split(text: str) -> tuple[str, str, str]:
    """The text before the table, the table, and the text after it."""
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return text[:begin], text[begin:end], text[end:]
