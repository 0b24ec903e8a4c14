"""The entry point of `pixelmill`, which handles Ctrl-C and SIGTERM before any slow import."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Shells ignore Ctrl-C for background commands, which must remain so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from pixelmill.flows.command_line import main as run

    run()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\npixelmill: interrupted; nothing was started.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
