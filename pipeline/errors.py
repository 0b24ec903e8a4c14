"""The errors a user can meet, each with the exit code it leads to."""

from enum import IntEnum
from typing import ClassVar

from pixelmill.pipeline.display import printable


class ExitCode(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    WORK_FAILED = 1
    REQUEST_WRONG = 2
    GATE_REFUSED = 3


class PixelmillError(Exception):
    """An error told in three parts.

    Args:
        received: What was found, with the name and the value in question.
        expected: What would have been right.
        remedy: What to do about it; a whole sentence.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.WORK_FAILED

    def __init__(self, received: str, expected: str, remedy: str) -> None:
        # All three go to Exception, so that the error survives the way back from another process.
        super().__init__(received, expected, remedy)
        self.received = received
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        # Whatever a file name or a library put in, an error is one line, and does nothing to a terminal.
        return printable(" ".join(f"{self.received}; expected {self.expected}. {self.remedy}".split()))


class WorkError(PixelmillError):
    """The request was right, and the work failed: a disk, a network, a process."""


class DownloadError(WorkError):
    """No source gave the data; worth another try later, unless there was none to ask."""


class NoSourceError(DownloadError):
    """There is no source to ask, so another try would end the same way."""


class RequestError(PixelmillError):
    """The request cannot be met as it stands: a recipe, a path, a name, a value."""

    exit_code = ExitCode.REQUEST_WRONG


class GateRefused(PixelmillError):
    """The work was done, and a gate refused its result: parity, promotion, failure rate."""

    exit_code = ExitCode.GATE_REFUSED
