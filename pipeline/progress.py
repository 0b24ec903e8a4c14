"""Live progress of long steps, on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int, str], None]
"""Call with how many units are done since the last call, and a note to show (may be empty)."""

_SECONDS_BETWEEN_LINES = 5.0


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


@contextmanager
def progress(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show how far a step has come.

    Args:
        description: What is being done.
        total: How many units there are, or None where nobody knows yet.
        unit: What is counted, in the plural: `images`, `bytes`.
    """
    if sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        with _lines(description, total, unit) as advance:
            yield advance


@contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=10) as bars:
        task = bars.add_task(description, total=total, note="")
        yield lambda count, note: bars.update(task, advance=count, note=note)


@contextmanager
def _lines(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def line(note: str) -> None:
        seconds = max(time.monotonic() - start, 1e-9)
        of_total = f" of {total:,}" if total is not None else ""
        rate = done / seconds
        left = f", {(total - done) / rate:.0f} s left" if total and rate and done < total else ""
        text = f"  {description}: {done:,}{of_total} {unit}, {rate:,.0f}/s{left}"
        print(f"{text}  {note}".rstrip(), file=sys.stderr, flush=True)

    def advance(count: int, note: str) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            line(note)

    yield advance
    line(f"in {time.monotonic() - start:.1f} s")
