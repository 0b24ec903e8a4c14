"""The first stage of scoring: check the request, and begin its run or find the one that it resumes."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pixelmill.pipeline.artifacts import read_json, remove_folder, write_json
from pixelmill.pipeline.bundles import PREPROCESSING_FILE, ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import require_provider
from pixelmill.pipeline.predictions.columns import RunFacts
from pixelmill.pipeline.predictions.layout import CSV_FILE, PARTS_FOLDER, WORK_FOLDER, TableFormat
from pixelmill.pipeline.registry import fetch_bundle
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.listing import holds_images
from pixelmill.pipeline.scoring.options import check_values
from pixelmill.pipeline.scoring.resume import begin_run, find_run
from pixelmill.pipeline.scoring.reuse import index_previous
from pixelmill.pipeline.scoring.true_labels import require_class_folders
from pixelmill.pipeline.scoring.worker.costly import COSTLY_FOLDER
from pixelmill.pipeline.storage import absolute, is_remote, parse_location, require_reachable

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
_FORMATS: dict[str, TableFormat] = {".csv": "csv", ".parquet": "parquet"}


@contextmanager
def holding_output(output: Path) -> Iterator[None]:
    """Keep an output for one run, from its plan to its commit.

    An object store has no locks: of a remote output the caller has to see that one run at a time uses it.
    Where the request is refused, the output is left as it was found.

    Raises:
        RequestError: Another run is at work there, or the output is no folder.
    """
    _require_folder(output)
    if is_remote(output):
        yield
        return
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    work = output / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"another run is at work in {output}",
            "an output of this run's own",
            "Wait for it to end, or choose another `output`.",
        ) from None
    try:
        yield
    finally:
        if [path.name for path in work.iterdir()] == [LOCK_FILE]:
            shutil.rmtree(work)
        lock.release()
        for folder in made:
            with suppress(OSError):  # Only a folder that is empty goes.
                folder.rmdir()


def _require_folder(output: Path) -> None:
    suffix = output.suffix.lower()
    if suffix in _FORMATS and not output.is_dir():
        folder = output.with_suffix("")
        raise RequestError(
            f"`output` {output}, the name of a file",
            "the name of a folder, which gets the table, its report and its manifest",
            f"Write `format` {_FORMATS[suffix]} `output` {folder}: the table is then "
            f"{folder / (CSV_FILE if _FORMATS[suffix] == 'csv' else PARTS_FOLDER)}.",
        )
    if not is_remote(output) and output.exists() and not output.is_dir():
        raise RequestError(f"output {output} is a file", "a folder", "Choose another `output`.")


def plan_scoring(request: ScoringRequest) -> ScoringPlan:
    """Check a request, and begin its run or go on with an interrupted run of the same.

    To be called while `holding_output`.

    Raises:
        RequestError: A folder without images, an output that holds something else, a value out of range.
    """
    started, clock = time.time(), time.monotonic()
    _check_values(request)
    run = find_run(request, describe_request(request))
    if not holds_images(request.images, request.globs):
        raise RequestError(
            f"folder {request.images} holds no images",
            f"files that match {' or '.join(request.globs)}, at any depth"
            if request.globs
            else "files with an image's extension, such as .png or .jpg, at any depth",
            "Check the path.",
        )
    if request.labels_from_folders:
        require_class_folders(request.images, request.bundle.labels())
    index_previous(request)
    facts = begin_run(request, describe_request(request), run)
    plan = ScoringPlan(request, facts, request.bundle.labels(), request.bundle.image_spec(), started, clock)
    remove_folder(request.shards)
    remove_folder(request.work / COSTLY_FOLDER)
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
        content["clock"],
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
        "clock": plan.clock,
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
    check_values(request)
    classes = len(request.bundle.labels())
    if request.top_k > classes:
        raise RequestError(f"`top_k` {request.top_k}", f"1 to {classes} classes", "Correct the option.")
    if request.trust_mtime and request.previous is None:
        raise RequestError(
            "`trust_mtime` without `previous`", "an earlier table to take rows from", "Correct the option."
        )
    if (request.executor == "dask") != (request.dask_address is not None):
        raise RequestError(
            f"`executor` {request.executor} with `dask_address` {request.dask_address}",
            "dask with the address of its scheduler, or local without one",
            "Correct the option.",
        )
    if request.executor == "local":  # The machines of a cluster are not this one.
        require_provider(request.provider)
    for place in (request.images, request.output, request.previous):
        if place is not None:
            require_reachable(place)
    if not request.images.is_dir():
        raise RequestError(f"{request.images} is no folder", "a folder of images", "Check the path.")
