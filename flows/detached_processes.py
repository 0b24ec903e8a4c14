"""Processes that outlive the command that starts them, and are recognized later by their ID and start time.

A process ID alone is reused, after a reboot as well; with the boot's ID and the start time it is unique. Both
are read from `/proc`, so this works on Linux.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_SECONDS_BETWEEN_LOOKS = 0.1
_START_TIME = 19  # The field of /proc/PID/stat, counted after the name of the program.
_PARENT = 1


@dataclass(frozen=True)
class ProcessMark:
    """A process, such that no other process is ever mistaken for it.

    Attributes:
        pid: The process ID.
        started: The boot's ID and the time of the start in clock ticks since then.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "ProcessMark | None":
        """The mark of a running process; None if there is none with this ID."""
        fields = _stat_of(pid)
        return cls(pid, f"{_boot_id()}:{fields[_START_TIME]}") if fields else None

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessMark.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_detached(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
) -> ProcessMark:
    """Start a process that survives the end of this one and of its terminal.

    Args:
        command: The program and its arguments.
        log: The file that its output is appended to.
        environment: All of its environment variables.
        folder: Its working folder.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    # Even a process that ended at once has a mark, because its parent has not asked for its exit code.
    return ProcessMark.of(process.pid) or ProcessMark(process.pid, "ended")


def descendants(pid: int) -> list[ProcessMark]:
    """All processes that a process has started, directly or not, in any session."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat_of(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            if mark := ProcessMark.of(child):
                found.append(mark)
    return found


def carrying(variable: str, value: str) -> list[ProcessMark]:
    """The processes that inherited an environment variable, also those whose parents have ended."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in _PROC.iterdir():
        # The environment of other users' processes cannot be read.
        with suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(ProcessMark.of(int(entry.name)))
    return [mark for mark in found if mark and mark.pid != os.getpid()]


def wait_for_end(processes: Iterable[ProcessMark], seconds: float) -> list[ProcessMark]:
    """Wait until processes have ended, and return those that have not after this time."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if process.is_alive()]
    while left and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        left = [process for process in left if process.is_alive()]
    return left


def end_all(first: ProcessMark, others: Sequence[ProcessMark], seconds: float) -> None:
    """End processes: by SIGTERM, and by SIGKILL after some time.

    The first gets the signal before the others, so that it can end them in its own way.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        first.send(number)
        wait_for_end([first], seconds)
        for process in others:
            process.send(number)
        if not wait_for_end([first, *others], seconds):
            return


def _stat_of(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` after the name of the program; None for an ended process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields  # A zombie has ended, but its parent has not noticed.


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
