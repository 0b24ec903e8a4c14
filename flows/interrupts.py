"""Handling Ctrl-C and SIGTERM: clean up, print one line, and exit with 128 plus the signal number."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pixelmill.pipeline.processes import terminate_children

NOTHING_LOST = "registered and promoted models are unchanged."


class _Interrupt:
    """The received signal, if any, and its consequence for the running work."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.consequence = NOTHING_LOST

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            # A second signal means that the user does not want to wait for the cleanup.
            terminate_children()
            os._exit(128 + self.number)
        self.number = number
        # In a destructor or callback, the exception would be ignored and its traceback printed.
        sys.unraisablehook = lambda _: None
        raise KeyboardInterrupt


_interrupt = _Interrupt()


@contextmanager
def interrupt_message(consequence: str) -> Iterator[None]:
    """Set the consequence that is printed if the block is interrupted."""
    before, _interrupt.consequence = _interrupt.consequence, consequence
    yield
    # Not in a `finally` clause: after an interrupt, the message must remain.
    _interrupt.consequence = before


@contextmanager
def handling_signals() -> Iterator[None]:
    """End the command with one line if Ctrl-C or SIGTERM interrupts the block.

    The signal raises `KeyboardInterrupt`, so that the block is cleaned up. It may surface as another
    exception: an interrupted import, for example, can fail with its own error.
    """
    # The resource tracker, which inherits this variable, would warn about shared memory that it removes.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except BaseException:
        if _interrupt.number is None:
            raise
        _end(_interrupt.number)


def _end(number: int) -> NoReturn:
    print(f"\npixelmill: interrupted; {_interrupt.consequence}", file=sys.stderr, flush=True)
    terminate_children()
    # Threads and exit handlers of libraries would delay the exit, and some print messages.
    os._exit(128 + number)
