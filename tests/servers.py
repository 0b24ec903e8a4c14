"""A web server on loopback that can simulate failures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves bytes by name, with ranges.

    Attributes:
        files: The files, by name.
        break_after: The number of bytes after which each of the next responses breaks off.
        honours_ranges: Whether it responds to a range request with that range or with the complete file.
        requests: The name and the `Range` header of each request.
    """

    files: dict[str, bytes]
    break_after: list[int] = field(default_factory=list)
    honours_ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Run the server on a free port of 127.0.0.1 during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            wanted = self.headers.get("Range")
            server.requests.append((name, wanted))
            if name not in server.files:
                self.send_error(404)
                return
            content = server.files[name]
            start = int(wanted[len("bytes=") :].rstrip("-")) if wanted and server.honours_ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            rest = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            cut = server.break_after.pop(0) if server.break_after else len(rest)
            self.wfile.write(rest[:cut])
            if cut < len(rest):
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
