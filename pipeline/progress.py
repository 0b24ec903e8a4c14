"""Progress of long steps on standard error: a bar on a terminal, an occasional line elsewhere."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from humanize import naturaldelta
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Meter(Protocol):
    """Shows the progress of a step."""

    def __call__(self, count: int, note: str) -> None:
        """Advance by `count` units and show a note, which may be empty."""

    def expect(self, total: int) -> None:
        """Set the total number of units once it is known."""


QUIET_VARIABLE = "PIXELMILL_QUIET"
"""An environment variable that turns progress off, in child processes as well."""
_SECONDS_BETWEEN_LINES = 5.0


def is_quiet() -> bool:
    """Whether progress is turned off."""
    return bool(os.environ.get(QUIET_VARIABLE))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


@contextmanager
def progress(description: str, total: int | None, unit: str) -> Iterator[Meter]:
    """Show the progress of a step.

    Args:
        description: The name of the step.
        total: The number of units; None if it is not known yet.
        unit: The plural name of the units, such as `images` or `bytes`.
    """
    if is_quiet():
        yield _Silence()
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        with _lines(description, total, unit) as advance:
            yield advance


@contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Meter]:
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
        yield _Bar(bars, bars.add_task(description, total=total, note=""))


@contextmanager
def _lines(description: str, total: int | None, unit: str) -> Iterator[Meter]:
    lines = _Lines(description, total, unit)
    yield lines
    lines.show(f"in {time.monotonic() - lines.start:.1f} s")


class _Silence:
    def __call__(self, count: int, note: str) -> None:
        pass

    def expect(self, total: int) -> None:
        pass


class _Bar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def __call__(self, count: int, note: str) -> None:
        self._bars.update(self._task, advance=count, note=note)

    def expect(self, total: int) -> None:
        self._bars.update(self._task, total=total)


class _Lines:
    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self.start = self._last = time.monotonic()
        self._done = 0

    def __call__(self, count: int, note: str) -> None:
        self._done += count
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.show(note)

    def expect(self, total: int) -> None:
        self._total = total

    def show(self, note: str) -> None:
        seconds = max(time.monotonic() - self.start, 1e-9)
        done, total, rate = self._done, self._total, self._done / seconds
        of_total = f" of {total:,}" if total is not None else ""
        left = f", {naturaldelta((total - done) / rate)} left" if total and rate and done < total else ""
        text = f"  {self._description}: {done:,}{of_total} {self._unit}, {rate:,.0f}/s{left}"
        print(f"{text}  {note}".rstrip(), file=sys.stderr, flush=True)
