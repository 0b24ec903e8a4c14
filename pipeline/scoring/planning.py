"""The first stage of scoring: check the request, and begin its run or find the one it goes on with."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.artifacts import MANIFEST, new_run_id, now, read_json, remove_file, remove_folder, write_json
from pipeline.config import ImageSpec
from pipeline.errors import RequestError
from pipeline.export import PREPROCESSING_FILE, ModelBundle
from pipeline.inference import require_provider
from pipeline.locations import absolute, children, is_remote, parse_location, require_reachable
from pipeline.predictions import REPORT_FILE, WORK_FOLDER, table_files
from pipeline.predictions.columns import RunFacts
from pipeline.registry import fetch_bundle
from pipeline.scoring import ScoringPlan, ScoringRequest
from pipeline.scoring.answered import ANSWERED_FILE
from pipeline.scoring.costly import COSTLY_FOLDER
from pipeline.scoring.listing import holds_images
from pipeline.scoring.previous import index_previous

_RUN_FILE = "run.json"
PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
_LEAST_MEMORY = 16 << 20


@contextmanager
def holding_output(output: Path) -> Iterator[None]:
    """Keep an output for one run, from its plan to its commit.

    An object store has no locks: of a remote output the caller has to see that one run at a time uses it.

    Raises:
        RequestError: Another run is at work there, or the output is no folder.
    """
    if is_remote(output):
        yield
        return
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
        for leftover in output.glob(".*.tmp"):
            leftover.unlink()  # Of a run that was killed while it wrote its manifest or its report.
        yield
    finally:
        if [path.name for path in work.iterdir()] == [LOCK_FILE]:
            shutil.rmtree(work)
        lock.release()
        with suppress(OSError):  # Only an output that holds nothing goes.
            output.rmdir()


def plan_scoring(request: ScoringRequest) -> ScoringPlan:
    """Check a request, and begin its run or go on with an interrupted run of the same.

    To be called while `holding_output`.

    Raises:
        RequestError: A folder without images, an output that holds something else, a value out of range.
    """
    started = time.time()
    _check_values(request)
    run = _find_run(request)
    if not holds_images(request.images, request.globs):
        raise RequestError(
            f"folder {request.images} holds no images",
            f"files that match {' or '.join(request.globs)}, at any depth"
            if request.globs
            else "files with an image's extension, such as .png or .jpg, at any depth",
            "Check the path.",
        )
    index_previous(request)
    facts = _begin_run(request, run)
    plan = ScoringPlan(request, facts, request.bundle.labels(), request.bundle.image_spec(), started)
    remove_folder(request.shards)
    remove_file(request.work / ANSWERED_FILE)
    remove_folder(request.work / COSTLY_FOLDER)
    if not is_remote(request.parts):
        request.parts.mkdir(parents=True, exist_ok=True)
    write_json(request.work / PLAN_FILE, _dump_plan(plan))
    return plan


def read_plan(work: Path) -> ScoringPlan:
    """The plan of the run in a work folder, as a worker on any machine needs it."""
    content = read_json(work / PLAN_FILE)
    request = content["request"]
    for name in ("images", "output", "previous"):
        request[name] = request[name] and parse_location(request[name])
    request["globs"] = tuple(request["globs"])
    bundle = content["bundle"]
    bundle["folder"] = Path(bundle["folder"])
    if bundle["address"] and not bundle["folder"].is_dir():  # On another machine than the plan's.
        bundle["folder"] = fetch_bundle(parse_location(bundle["address"]))
    return ScoringPlan(
        ScoringRequest(bundle=ModelBundle(**bundle), **request),
        RunFacts(**content["run"]),
        tuple(content["labels"]),
        ImageSpec(**content["image"]),
        content["started"],
    )


def _dump_plan(plan: ScoringPlan) -> dict[str, Any]:
    request = {**vars(plan.request)}
    bundle = {**vars(request.pop("bundle"))}
    bundle["folder"] = absolute(bundle["folder"])
    for name in ("images", "output", "previous"):
        request[name] = request[name] and absolute(request[name])
    return {
        "request": request,
        "bundle": bundle,
        "run": vars(plan.facts),
        "labels": plan.labels,
        "image": plan.image.model_dump(),
        "started": plan.started,
    }


def describe_request(request: ScoringRequest) -> dict[str, Any]:
    """What must be the same for two requests to be one run."""
    return {
        "model": f"{request.bundle.name}@{request.bundle.version}",
        "model_sha256": request.bundle.onnx_sha256,
        "preprocessing_sha256": request.bundle.sha256_of(PREPROCESSING_FILE),
        "precision": request.bundle.precision,
        "images": absolute(request.images),
        "globs": list(request.globs),
        "labels_from_folders": request.labels_from_folders,
        "format": request.format,
        "top_k": request.top_k,
        "max_pixels": request.max_pixels,
        "max_image_memory": request.max_image_memory,
        "max_image_seconds": request.max_image_seconds,
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
        (
            request.max_image_memory < _LEAST_MEMORY,
            "--max-image-memory",
            request.max_image_memory,
            f"at least {_LEAST_MEMORY:,} bytes",
        ),
        (
            not 0 < request.max_image_seconds < float("inf"),
            "--max-image-seconds",
            request.max_image_seconds,
            "a number of seconds over 0",
        ),
        (
            request.trust_mtime and request.previous is None,
            "--trust-mtime",
            "without --previous",
            "an earlier table to take rows from",
        ),
        (
            (request.engine == "dask") != (request.dask_address is not None),
            "--engine",
            f"{request.engine} with --dask-address {request.dask_address}",
            "dask with the address of its scheduler, or local without one",
        ),
    ]
    for is_wrong, option, value, expected in checks:
        if is_wrong:
            raise RequestError(f"{option} {value}", expected, "Correct the option.")
    if request.engine == "local":  # The machines of a cluster are not this one.
        require_provider(request.provider)
    for place in (request.images, request.output, request.previous):
        if place is not None:
            require_reachable(place)
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
    ours = {MANIFEST, REPORT_FILE, *(path.name for path in table_files(output))} if held else set()
    foreign = [path.name for path in children(output) if path.name not in ours and path.name[0] != "."]
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
        remove_folder(request.parts)
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
