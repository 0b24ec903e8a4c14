"""Predicting with onnxruntime-web in headless Chromium.

`python -m tests.engines.chromium REQUESTS PREDICTIONS`
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from tests.browsers import headless_chromium

JAVASCRIPT = Path(__file__).resolve().parents[1] / "javascript"
_PREDICT = """async (requests) => {
    const ort = await import("/onnxruntime-web/ort.wasm.min.mjs");
    const { predict } = await import("/predicting.mjs");
    return { version: ort.env.versions.web, predictions: await predict(ort, requests) };
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Predict every case in a file, in a page from a local server."""
    requests, predictions = map(Path, sys.argv[1:])
    requested = json.loads(requests.read_text())
    with TemporaryDirectory() as name:
        site = Path(name)
        (site / "index.html").write_text("<!doctype html><title>onnxruntime-web</title>")
        (site / "predicting.mjs").symlink_to(JAVASCRIPT / "predicting.mjs")
        (site / "onnxruntime-web").symlink_to(JAVASCRIPT / "node_modules/onnxruntime-web/dist")
        for request in requested:
            (site / f"{request['name']}.onnx").symlink_to(request["model"])
            request["model"] = f"/{request['name']}.onnx"
        with _serving(site) as address, headless_chromium() as browser:
            page = browser.new_page()
            page.goto(address)
            found = page.evaluate(_PREDICT, requested)
            found["version"] += f" in Chromium {browser.version.split('.')[0]}"
    predictions.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
