"""Decoder processes that are crashed by single images."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import write_text
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.decoding.time_limit import WATCH, TimeLimit
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import DecodedImage, ImageFailure, decode
from pixelmill.pipeline.processes import run_in_spawned_process
from tests.pipeline.decoding.bombs import jpeg_with_scans, png

SPEC = ImageSpec(height=8, width=8, channels=1)
MAX_SECONDS = 2.0


def decode_or_die(data: bytes) -> DecodedImage:
    if data == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"break":
        raise KeyError("no such thing")
    while data == b"hang":
        pass
    return decode(data, SPEC)


def codes(results: list[DecodedImage | ImageFailure]) -> list[str]:
    return [result.code if isinstance(result, ImageFailure) else "decoded" for result in results]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_image_has_its_result_despite_the_others(processes: int) -> None:
    random = np.random.default_rng(0)
    tensors = [random.integers(0, 256, (8, 8, 1), np.uint8) for _ in range(70)]
    contents = [encode_png(tensor) for tensor in tensors]
    bad = {0: b"die", 17: b"break", 20: png(5000, 5000, 8, 6, 4), 21: b"die", 40: b"hang", 69: b"die"}
    for place, content in bad.items():
        contents[place] = content
    limits = DecodingLimits(max_memory=64 << 20, max_seconds=MAX_SECONDS)
    results = list(map_guarded(decode_or_die, contents, processes, limits))
    assert codes([results[place] for place in bad]) == [
        "worker_died",
        "corrupt",
        "too_costly",
        "worker_died",
        "too_costly",
        "worker_died",
    ]
    assert len(results) == len(contents)
    for place, result in enumerate(results):
        if place not in bad:
            assert isinstance(result, DecodedImage), (place, result)
            assert np.array_equal(result.pixels, tensors[place])


def test_items_are_consumed_lazily() -> None:
    taken = []

    def items() -> Iterator[bytes]:
        for number in range(10_000):
            taken.append(number)
            yield b""

    results = map_guarded(decode_or_die, items(), 1)
    assert codes([next(results)]) == ["empty"]
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 200
    assert list(map_guarded(decode_or_die, [], 1)) == []


def test_processes_that_never_start_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkError, match="died before it was ready"):
        list(map_guarded(decode_or_die, [b""], 1))


def test_the_processes_end_if_their_parent_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal\n"
        "from pixelmill.pipeline.decoding.pool import map_guarded\n"
        "from tests.pipeline.decoding.test_pool import process_number\n"
        "if __name__ == '__main__':\n"
        "    print(next(map_guarded(process_number, range(100), 1)), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    child = Path("/proc") / done.stdout.strip()
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        pass


def process_number(_: int) -> int:
    return os.getpid()


def stay_too_long(note: Path) -> None:
    limit = TimeLimit(MAX_SECONDS, partial(write_text, note))
    WATCH.add(limit)
    end = time.monotonic() + 2 * MAX_SECONDS
    while time.monotonic() < end:
        limit.begin("quick")
        decode(encode_png(np.zeros((8, 8, 1), np.uint8)), SPEC)
        limit.end()
    limit.begin("slow")
    decode(jpeg_with_scans(4000, 10_000), SPEC)


def test_a_process_over_the_time_limit_records_the_image_and_ends(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="died"):
        run_in_spawned_process(stay_too_long, tmp_path / "note")
    assert (tmp_path / "note").read_text() == "slow"
