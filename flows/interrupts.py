"""Ctrl-C and SIGTERM: the work is unwound, one line says what that means, exit code 128 plus the signal."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pixelmill.pipeline.processes import terminate_children

NOTHING_LOST = "what is registered and promoted stays as it is."


class _Interrupt:
    """The signal that was received, if any, and what it means for the work."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.consequence = NOTHING_LOST

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            # The user does not want to wait for what is being tidied up.
            terminate_children()
            os._exit(128 + self.number)
        self.number = number
        # Raised in a destructor or a callback it would be shown, with a traceback, and be lost.
        sys.unraisablehook = lambda _: None
        raise KeyboardInterrupt


_interrupt = _Interrupt()


@contextmanager
def telling_of_interrupts(consequence: str) -> Iterator[None]:
    """Have the line on an interrupt in the block say what it means for the work there."""
    before, _interrupt.consequence = _interrupt.consequence, consequence
    yield
    # Only where the block was not interrupted.
    _interrupt.consequence = before


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM in the block end the command with one line, whatever they interrupt.

    What is raised is `KeyboardInterrupt`, so that the block is unwound. Another exception may arrive:
    an import that is interrupted, for one, can fail with an error of its own.
    """
    # The process that removes what an ended command leaves behind in shared memory says so; it inherits this.
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
    # Threads and exit handlers of libraries would take their time, and some print what they tidied up.
    os._exit(128 + number)
