"""Tables on the terminal, as plain text."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Wider than any table, so that rich neither wraps nor truncates a cell.
_WIDTH = 1 << 16


def render_table(
    rows: Sequence[Sequence[str]], headings: Sequence[str] | None = None, right: Sequence[int] = ()
) -> str:
    """Align cells in columns, without lines, colours or trailing spaces, for `grep` and `awk`.

    Args:
        rows: The cells of each row, at least one row.
        headings: One per column; None for a table without them.
        right: The indices of the columns that are aligned to the right.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=headings is not None)
    for index in range(len(rows[0])):
        heading = Text(headings[index]) if headings else ""
        table.add_column(heading, justify="right" if index in right else "left", header_style="")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
