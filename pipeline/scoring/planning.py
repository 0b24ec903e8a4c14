"""The first stage of scoring: check the request, list the images, cut the listing into shards."""

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.artifacts import (
    MANIFEST,
    new_run_id,
    now,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from pipeline.errors import RequestError
from pipeline.export import PREPROCESSING_FILE
from pipeline.inference import require_provider
from pipeline.predictions import WORK_FOLDER, RunFacts, table_files
from pipeline.progress import progress
from pipeline.scoring import ScoringPlan, ScoringRequest
from pipeline.scoring.listing import ListedImage, list_images

SHARD_SIZE = 1024
_RUN_FILE = "run.json"
LOCK_FILE = "lock"


@contextmanager
def holding_output(output: Path) -> Iterator[None]:
    """Keep an output for one run, from its plan to its commit.

    Raises:
        RequestError: Another run is at work there, or the output is no folder.
    """
    if output.exists() and not output.is_dir():
        raise RequestError(f"output {output} is a file", "a folder", "Choose another --output.")
    work = output / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"another run is at work in {output}",
            "an output of this run's own",
            "Wait for it to end, or choose another --output.",
        ) from None
    try:
        for leftover in output.glob(f".{MANIFEST}.*.tmp"):
            leftover.unlink()  # Of a run that was killed while it wrote its manifest.
        yield
    finally:
        if [path.name for path in work.iterdir()] == [LOCK_FILE]:
            shutil.rmtree(work)
        lock.release()
        with suppress(OSError):  # Only an output that holds nothing goes.
            output.rmdir()


def plan_scoring(request: ScoringRequest) -> ScoringPlan:
    """List the images of a request, ready to be scored; go on with an interrupted run of the same.

    To be called while `holding_output`.

    Raises:
        RequestError: A folder without images, an output that holds something else, a value out of range.
    """
    started = time.monotonic()
    _check_values(request)
    run = _find_run(request)
    images = list_images(request.images)
    first = next(images, None)
    if first is None:
        raise RequestError(
            f"folder {request.images} holds no images",
            "files with an image's extension, such as .png or .jpg, at any depth",
            "Check the path.",
        )
    facts = _begin_run(request, run)
    shutil.rmtree(request.shards, ignore_errors=True)
    request.parts.mkdir(parents=True, exist_ok=True)
    listed = shards = 0
    with progress("list", None, "images") as advance:
        for batch in _batches(itertools.chain([first], images)):
            lines = "".join(f"{json.dumps(astuple(image))}\n" for image in batch)
            write_text(shard_path(request, shards), lines)
            shards += 1
            listed += len(batch)
            advance(len(batch), "")
    return ScoringPlan(request, facts, listed, shards, started)


def shard_path(request: ScoringRequest, shard: int) -> Path:
    """The file of one shard of the listing: a line of JSON an image."""
    return request.shards / f"{shard:05d}.jsonl"


def read_shard(path: Path) -> list[ListedImage]:
    """The images of one shard."""
    return [ListedImage(*json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def answer_key(plan: ScoringPlan, shard: int) -> str:
    """A hash of the run and of a shard's listing: a part that carries it holds the shard's answers."""
    listing = sha256_of(shard_path(plan.request, shard))
    return hashlib.sha256(f"{plan.facts.run_id}\0{listing}".encode()).hexdigest()


def describe_request(request: ScoringRequest) -> dict[str, Any]:
    """What must be the same for two requests to be one run."""
    return {
        "model": f"{request.bundle.name}@{request.bundle.version}",
        "model_sha256": request.bundle.onnx_sha256,
        "preprocessing_sha256": sha256_of(request.bundle.folder / PREPROCESSING_FILE),
        "images": str(request.images.resolve()),
        "format": request.format,
        "top_k": request.top_k,
        "max_pixels": request.max_pixels,
    }


def _check_values(request: ScoringRequest) -> None:
    classes = len(request.bundle.labels())
    checks = [
        (not 1 <= request.top_k <= classes, "--top-k", request.top_k, f"1 to {classes} classes"),
        (
            request.workers is not None and request.workers < 1,
            "--workers",
            request.workers,
            "at least 1",
        ),
        (
            not 0 <= request.max_failure_rate <= 1,
            "--max-failure-rate",
            request.max_failure_rate,
            "a share from 0 to 1",
        ),
        (request.max_pixels < 1, "--max-pixels", request.max_pixels, "at least 1"),
    ]
    for is_wrong, option, value, expected in checks:
        if is_wrong:
            raise RequestError(f"{option} {value}", expected, "Correct the option.")
    require_provider(request.provider)
    if not request.images.is_dir():
        raise RequestError(f"{request.images} is no folder", "a folder of images", "Check the path.")


def _find_run(request: ScoringRequest) -> RunFacts | None:
    """The run that this request goes on with, or None where it begins one.

    An unfinished run counts before a finished one. With `fresh`, only an unfinished run that was
    itself begun fresh is gone on with; whatever else the output holds is replaced at the commit.

    Raises:
        RequestError: The output holds another run, or files that no run wrote.
    """
    output, unfinished = request.output, request.work / _RUN_FILE
    runs = [path for path in (unfinished, output / MANIFEST) if path.is_file()]
    held = _read_run(runs[0]) if runs else None
    ours = {MANIFEST, *(path.name for path in table_files(output))} if held else set()
    foreign = [path.name for path in output.iterdir() if path.name not in ours and path.name[0] != "."]
    if foreign:
        raise RequestError(
            f"output {output} holds {sorted(foreign)[0]!r}, which no scoring run wrote",
            "an empty or a new folder",
            "Choose another --output.",
        )
    if held is None:
        return None
    identity = describe_request(request)
    differing = [key for key in identity if held["request"].get(key) != identity[key]]
    if request.fresh:
        goes_on = not differing and runs[0] == unfinished and held.get("fresh") is True
        return RunFacts(**held["run"]) if goes_on else None
    if differing:
        key = differing[0]
        raise RequestError(
            f"output {output} holds a run with {key} {held['request'].get(key)!r}",
            f"{identity[key]!r}, as asked for now",
            "Choose another --output, or replace that run with --fresh.",
        )
    # Of a finished CSV table no parts are left to keep: scoring it once more is a new run.
    return RunFacts(**held["run"]) if runs[0] == unfinished or request.format == "parquet" else None


def _read_run(path: Path) -> dict[str, Any]:
    content = read_json(path)
    try:
        RunFacts(**content["run"])
        content["request"].get("model")
    except (TypeError, KeyError, AttributeError):
        raise RequestError(
            f"{path} tells of no scoring run", "what a scoring run wrote", "Choose another --output."
        ) from None
    run: dict[str, Any] = content
    return run


def _begin_run(request: ScoringRequest, run: RunFacts | None) -> RunFacts:
    """Write down which run this is, before any part of it is written."""
    if run is not None and (request.work / _RUN_FILE).is_file():
        return run
    if run is None:
        shutil.rmtree(request.parts, ignore_errors=True)
        run = RunFacts(
            model_name=request.bundle.name,
            model_version=str(request.bundle.version),
            model_sha256=request.bundle.onnx_sha256,
            run_id=new_run_id(request.bundle.name),
            scored_at=now(),
        )
    content = {"request": describe_request(request), "run": vars(run), "fresh": request.fresh}
    write_json(request.work / _RUN_FILE, content)
    return run


def _batches(images: Iterable[ListedImage]) -> Iterator[list[ListedImage]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, SHARD_SIZE)):
        yield batch
