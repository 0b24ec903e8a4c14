"""The first stage of scoring: check the request, and start a run or resume an interrupted one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from pixelmill.pipeline.artifacts import read_json, remove_file, remove_folder, write_json
from pixelmill.pipeline.bundles import PREPROCESSING_FILE
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import require_provider
from pixelmill.pipeline.predictions.layout import CSV_FILE, PARTS_FOLDER, WORK_FOLDER, TableFormat
from pixelmill.pipeline.registry import fetch_bundle
from pixelmill.pipeline.registry.use import keep_in_use
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.copies import check_copies
from pixelmill.pipeline.scoring.listing import holds_images
from pixelmill.pipeline.scoring.options import check_values
from pixelmill.pipeline.scoring.request_source import STANDARD_INPUT_FILE, find_source
from pixelmill.pipeline.scoring.resume import begin_run, find_run
from pixelmill.pipeline.scoring.reuse import index_previous
from pixelmill.pipeline.scoring.sources import ImageSource, is_standard_input
from pixelmill.pipeline.scoring.training_images import require_training_images
from pixelmill.pipeline.scoring.true_labels import require_class_folders
from pixelmill.pipeline.scoring.worker.timeouts import TIMEOUTS_FOLDER
from pixelmill.pipeline.storage import Location, absolute, locked_folder, parse_location, require_reachable

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"
# Recorded only where they are set, so that a table of an earlier version is still the same run.
_FLAGS = ("mark_training_images", "single_file")
_PLAN = TypeAdapter(ScoringPlan)
_FORMATS: dict[str, TableFormat] = {".csv": "csv", ".parquet": "parquet"}


@contextmanager
def lock_output(output: Location) -> Iterator[None]:
    """Lock an output for one run, from its plan to its commit.

    Object stores have no locks, so the caller must ensure that only one run at a time uses a remote output.
    If the request is refused, the output is unchanged.

    Raises:
        RequestError: Another run uses the output, or it is not a folder, or cannot be reached.
    """
    require_reachable(output)
    _require_folder(output)
    with ExitStack() as held:
        try:
            held.enter_context(locked_folder(output / WORK_FOLDER, LOCK_FILE))
        except TimeoutError:
            raise RequestError(
                f"output {output} is in use by another run",
                "an output that no other run uses",
                "Wait until that run ends, or choose another `output`.",
            ) from None
        yield


def _require_folder(output: Location) -> None:
    suffix = output.suffix.lower()
    if suffix in _FORMATS and not output.is_dir():
        folder = output.with_suffix("")
        raise RequestError(
            f"`output` {output}, which is named like a file",
            "a folder for the table, its report and its manifest",
            f"Use `format` {_FORMATS[suffix]} `output` {folder}: the table is then "
            f"{folder / (CSV_FILE if _FORMATS[suffix] == 'csv' else PARTS_FOLDER)}.",
        )
    if output.exists() and not output.is_dir():
        raise RequestError(f"output {output} is a file", "a folder", "Choose another `output`.")


def plan_scoring(request: ScoringRequest) -> ScoringPlan:
    """Check a request, and start its run or resume an interrupted run of the same request.

    Must be called inside `lock_output`.

    Raises:
        RequestError: The folder contains no images, the output contains anything else, or a value is out of
            range.
    """
    started, clock = time.time(), time.monotonic()
    _check_values(request)
    keep_in_use(request.bundle.folder)
    try:
        source = find_source(request)
        identity = describe_request(request, source)
        run = find_run(request, identity)
        if source.kind == "folder":
            _require_images(request)
        index_previous(request)
    except BaseException:
        remove_file(request.work / STANDARD_INPUT_FILE)
        raise
    facts = begin_run(request, identity, run)
    bundle = request.bundle
    thresholds = bundle.decision_thresholds()
    labels, spec = bundle.labels(), bundle.image_spec()
    several = bundle.multi_label
    plan = ScoringPlan(request, facts, labels, spec, started, source, clock, thresholds, several)
    remove_folder(request.shards)
    remove_folder(request.work / TIMEOUTS_FOLDER)
    write_plan(plan)
    return plan


def _require_images(request: ScoringRequest) -> None:
    if not holds_images(request.images, request.globs):
        raise RequestError(
            f"folder {request.images} contains no images",
            f"files that match {' or '.join(request.globs)}, at any depth"
            if request.globs
            else "files with an image extension, such as .png or .jpg, at any depth",
            "Check the path.",
        )
    if request.labels_from_folders:
        require_class_folders(request.images, request.bundle.labels())


def write_plan(plan: ScoringPlan) -> None:
    """Write a plan to the work folder of a run, with paths that mean the same to every worker."""
    write_json(plan.request.work / PLAN_FILE, _PLAN.dump_python(plan, mode="json"))


def read_plan(work: Location) -> ScoringPlan:
    """Read the plan of a run from its work folder, on any machine."""
    plan = _PLAN.validate_python(read_json(work / PLAN_FILE))
    bundle = plan.request.bundle
    if bundle.address and not bundle.folder.is_dir():  # This is another machine.
        bundle = replace(bundle, folder=fetch_bundle(parse_location(bundle.address)))
    return replace(plan, request=replace(plan.request, bundle=bundle))


def describe_request(request: ScoringRequest, source: ImageSource | None = None) -> dict[str, Any]:
    """The parameters that must be equal for a request to resume a run.

    Args:
        request: The request.
        source: Its images, unless they are a folder.
    """
    images = str(request.images) if is_standard_input(request.images) else absolute(request.images)
    return {
        # Absent from the runs of a table without embeddings, as from those before there were any.
        **({"embeddings": True} if request.embeddings else {}),
        "model": f"{request.bundle.name}@{request.bundle.version}",
        "model_sha256": request.bundle.onnx_sha256,
        "preprocessing_sha256": request.bundle.sha256_of(PREPROCESSING_FILE),
        "precision": request.bundle.precision,
        "images": images,
        "globs": list(request.globs),
        "labels_from_folders": request.labels_from_folders,
        "format": request.format,
        "top_k": request.top_k,
        "max_pixels": request.max_pixels,
        "max_image_memory": request.max_image_memory,
        "max_image_seconds": request.max_image_seconds,
        **{name: True for name in _FLAGS if getattr(request, name)},
        **(source.describe() if source else {}),
    }


def _check_values(request: ScoringRequest) -> None:
    check_values(request)
    classes = len(request.bundle.labels())
    if request.top_k > classes:
        raise RequestError(f"`top_k` {request.top_k}", f"1 to {classes} classes", "Correct the option.")
    if request.embeddings and request.format == "csv":
        raise RequestError(
            "`embeddings` with `format` csv",
            "a table in Parquet, which has columns of lists",
            "Leave out one of the two.",
        )
    if request.embeddings != bool(request.bundle.embedding_size):
        raise RequestError(
            f"`embeddings` {request.embeddings} with {request.bundle.onnx_path}",
            "the ONNX file with embeddings if they are asked for, and only then",
            "Create the request with `ScoringRequest.from_options`.",
        )
    if request.trust_mtime and request.previous is None:
        raise RequestError(
            "`trust_mtime` without `previous`", "an earlier table to reuse rows from", "Correct the option."
        )
    if (request.executor == "dask") != (request.dask_address is not None):
        raise RequestError(
            f"`executor` {request.executor} with `dask_address` {request.dask_address}",
            "dask with the address of its scheduler, or local without an address",
            "Correct the option.",
        )
    if request.executor == "local":  # The machines of a cluster may have other providers.
        require_provider(request.provider)
    check_copies(request)
    if request.mark_training_images:
        require_training_images(request.bundle)
    for place in (request.images, request.previous, request.root):
        if place is not None:
            require_reachable(place)
