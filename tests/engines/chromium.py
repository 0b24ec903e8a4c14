"""Predicting with onnxruntime-web in headless Chromium.

`python -m tests.engines.chromium QUESTIONS ANSWERS`
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
_ASK = """async (questions) => {
    const ort = await import("/onnxruntime-web/ort.wasm.min.mjs");
    const { answer } = await import("/answering.mjs");
    return { version: ort.env.versions.web, answers: await answer(ort, questions) };
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
    questions, answers = map(Path, sys.argv[1:])
    requested = json.loads(questions.read_text())
    with TemporaryDirectory() as name:
        site = Path(name)
        (site / "index.html").write_text("<!doctype html><title>onnxruntime-web</title>")
        (site / "answering.mjs").symlink_to(JAVASCRIPT / "answering.mjs")
        (site / "onnxruntime-web").symlink_to(JAVASCRIPT / "node_modules/onnxruntime-web/dist")
        for question in requested:
            (site / f"{question['name']}.onnx").symlink_to(question["model"])
            question["model"] = f"/{question['name']}.onnx"
        with _serving(site) as address, headless_chromium() as browser:
            page = browser.new_page()
            page.goto(address)
            found = page.evaluate(_ASK, requested)
            found["version"] += f" in Chromium {browser.version.split('.')[0]}"
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
