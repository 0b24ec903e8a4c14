"""The first stage of scoring: check the request, list the images, cut the listing into shards."""

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

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
from pipeline.predictions import RunFacts, is_ours
from pipeline.progress import progress
from pipeline.scoring import ScoringPlan, ScoringRequest
from pipeline.scoring.listing import ListedImage, list_images

SHARD_SIZE = 1024
_RUN_FILE = "run.json"


def plan_scoring(request: ScoringRequest) -> ScoringPlan:
    """List the images of a request, ready to be scored; go on with an interrupted run of the same.

    Raises:
        RequestError: A folder without images, an output that holds something else, a value out of range.
    """
    started = time.monotonic()
    _check_values(request)
    identity = describe_request(request)
    _check_output(request, identity)
    images = list_images(request.images)
    first = next(images, None)
    if first is None:
        raise RequestError(
            f"folder {request.images} holds no images",
            "files with an image's extension, such as .png or .jpg, at any depth",
            "Check the path.",
        )
    if request.fresh:
        shutil.rmtree(request.work, ignore_errors=True)
    facts = _begin_run(request, identity)
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


def _check_output(request: ScoringRequest, identity: dict[str, Any]) -> None:
    output = request.output
    if output.exists() and not output.is_dir():
        raise RequestError(f"output {output} is a file", "a folder", "Choose another --output.")
    if not output.exists():
        return
    foreign = [path.name for path in output.iterdir() if not is_ours(output, path.name)]
    if foreign:
        raise RequestError(
            f"output {output} holds {sorted(foreign)[0]!r}, which no scoring run wrote",
            "an empty or a new folder",
            "Choose another --output.",
        )
    if request.fresh:
        return
    for path in (output / MANIFEST, request.work / _RUN_FILE):
        if not path.is_file():
            continue
        other = read_json(path)["request"]
        differing = [key for key in identity if other.get(key) != identity[key]]
        if differing:
            key = differing[0]
            raise RequestError(
                f"output {output} holds a run with {key} {other.get(key)!r}",
                f"{identity[key]!r}, as asked for now",
                "Choose another --output, or replace that run with --fresh.",
            )


def _begin_run(request: ScoringRequest, identity: dict[str, Any]) -> RunFacts:
    """The facts of the run this request goes on with, or of a new one; on disk before any part is."""
    earlier = [path for path in (request.work / _RUN_FILE, request.output / MANIFEST) if path.is_file()]
    if earlier and not request.fresh:
        facts = RunFacts(**read_json(earlier[0])["run"])
    else:
        facts = RunFacts(
            model_name=request.bundle.name,
            model_version=str(request.bundle.version),
            model_sha256=request.bundle.onnx_sha256,
            run_id=new_run_id(request.bundle.name),
            scored_at=now(),
        )
    write_json(request.work / _RUN_FILE, {"request": identity, "run": vars(facts)})
    return facts


def _batches(images: Iterable[ListedImage]) -> Iterator[list[ListedImage]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, SHARD_SIZE)):
        yield batch
