"""Where the `pixelmill` command begins: it answers Ctrl-C and SIGTERM before anything slow is imported."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever starts a command in the background has Ctrl-C ignored, and wants it to stay so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from pixelmill.flows.command_line import main as run

    run()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\npixelmill: interrupted; nothing was begun.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
