"""Errors that are reported to users, with their exit codes."""

from enum import IntEnum
from typing import ClassVar

from pixelmill.pipeline.display import printable, without_passwords


class ExitCode(IntEnum):
    """The exit codes of commands."""

    DONE = 0
    WORK_FAILED = 1
    REQUEST_WRONG = 2
    GATE_REFUSED = 3


class PixelmillError(Exception):
    """An error with a message in three parts.

    Args:
        received: What was received, with the name and the value in question.
        expected: What was expected.
        remedy: How to fix it, as a complete sentence.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.WORK_FAILED

    def __init__(self, received: str, expected: str, remedy: str) -> None:
        # Exception gets all three, so that the error can be pickled and sent to another process.
        super().__init__(received, expected, remedy)
        self.received = received
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        # File names and messages of libraries may contain line breaks or terminal escapes.
        text = " ".join(f"{self.received}; expected {self.expected}. {self.remedy}".split())
        return printable(without_passwords(text))


class WorkError(PixelmillError):
    """The request was valid, but the work failed: a disk, a network, a process."""


class DownloadError(WorkError):
    """No source provided the data; a later attempt may succeed."""


class NoSourceError(DownloadError):
    """There is no source for the data, so another attempt would fail as well."""


class RequestError(PixelmillError):
    """The request is invalid: a recipe, a path, a name, a value."""

    exit_code = ExitCode.REQUEST_WRONG


class GateRefused(PixelmillError):
    """The work is done, but a gate refused its result: parity, promotion, failure rate."""

    exit_code = ExitCode.GATE_REFUSED
