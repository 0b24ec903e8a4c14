"""The process of a temporary Prefect server: `python -m pixelmill.flows.server_process SOCKET`.

SOCKET is the file descriptor of an inherited listening socket. The process ends when its standard input is
closed: it is a pipe that the parent process holds open, so the server never outlives the parent.
"""

import os
import socket
import sys
import threading

_SECONDS_TO_SHUT_DOWN = 2


def main() -> None:
    """Serve Prefect's API on the socket until the parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=_SECONDS_TO_SHUT_DOWN,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
