"""Deciding whether a request resumes the run in its output, replaces it, or is refused."""

from dataclasses import dataclass
from logging import getLogger
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelmill.pipeline.artifacts import MANIFEST, new_run_id, now, read_json, remove_folder, write_json
from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions.columns import RunFacts
from pixelmill.pipeline.predictions.layout import CSV_FILE, PARTS_FOLDER, REPORT_FILE, WORK_FOLDER
from pixelmill.pipeline.predictions.publication import (
    foreign_files_in_parts,
    is_publication_pending,
    publish_table,
)
from pixelmill.pipeline.predictions.table import DamagedTable, listed_table
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.storage import Location, children, link_or_copy, make_folder

_log = getLogger(__name__)
_RUN_FILE = "run.json"
_TABLE = {MANIFEST, REPORT_FILE, CSV_FILE, PARTS_FOLDER}


@dataclass(frozen=True)
class _HeldRun:
    """The run of an output, in its own file while it is unfinished and in the table's manifest afterwards.

    Attributes:
        request: What must be the same for two requests to be one run.
        run: Its facts.
        fresh: Whether it was begun with `fresh`.
    """

    request: dict[str, Any]
    run: RunFacts
    fresh: bool = False


_RUN = TypeAdapter(_HeldRun)


def find_run(request: ScoringRequest, identity: dict[str, Any]) -> RunFacts | None:
    """The run that this request resumes; None if it starts a new one.

    An unfinished run takes precedence over a finished one. With `fresh`, only an unfinished run that was
    itself started with `fresh` is resumed; anything else in the output is replaced at the commit.

    Args:
        request: The request.
        identity: The parameters that must be equal for a request to resume a run.

    Raises:
        RequestError: The output contains another run, or files that no run wrote.
    """
    output, unfinished = request.output, request.work / _RUN_FILE
    runs = [path for path in (unfinished, output / MANIFEST) if path.is_file()]
    held = _read_run(runs[0]) if runs else None
    _require_no_foreign_file(output, _TABLE if held else set())
    if held is None:
        return None
    differing = [key for key in identity if held.request.get(key) != identity[key]]
    if request.fresh:
        resumes = not differing and runs[0] == unfinished and held.fresh
        return held.run if resumes else None
    if differing:
        key = differing[0]
        raise RequestError(
            f"output {output} contains a run with {key} {held.request.get(key)!r}",
            f"{identity[key]!r}, as in this request",
            "Choose another `output`, or replace that run with `fresh`.",
        )
    # A finished table in one file has no parts left to keep, so scoring it again is a new run.
    has_parts = request.format == "parquet" and not request.single_file
    return held.run if runs[0] == unfinished or has_parts else None


def begin_run(request: ScoringRequest, identity: dict[str, Any], run: RunFacts | None) -> RunFacts:
    """Record the run before any part of it is written, and keep the finished parts of a resumed run.

    Args:
        request: The request.
        identity: See `find_run`.
        run: The run to resume; None for a new one.
    """
    if is_publication_pending(request.output):
        publish_table(request.output)
    resumes = run is not None and (request.work / _RUN_FILE).is_file()
    if not resumes:
        remove_folder(request.parts)
    make_folder(request.parts)
    if run is not None:
        _adopt_parts(request, run)
    if run is not None and resumes:
        return run
    run = run or RunFacts(
        model_name=request.bundle.name,
        model_version=str(request.bundle.version),
        model_sha256=request.bundle.onnx_sha256,
        run_id=new_run_id(request.bundle.name),
        scored_at=now(),
    )
    held = _HeldRun(identity, run, request.fresh)
    write_json(request.work / _RUN_FILE, _RUN.dump_python(held, mode="json"))
    return run


def held_model(output: Location) -> str | None:
    """The model of the run that an output holds, `digits@6`; None if it holds no run.

    Raises:
        RequestError: A file of the run cannot be read.
    """
    for path in (output / WORK_FOLDER / _RUN_FILE, output / MANIFEST):
        if path.is_file():
            return str(_read_run(path).request["model"])
    return None


def _adopt_parts(request: ScoringRequest, run: RunFacts) -> None:
    """Add the parts of the finished table to those of the run, if it is the table of this run.

    A part that is not the one listed in the manifest is omitted, and its images are scored again.
    """
    if not (request.output / MANIFEST).is_file():
        return
    table = listed_table(request.output)
    if table.is_csv or table.manifest["run"]["run_id"] != run.run_id:
        return
    finished = {path.name for path in children(request.parts)}
    for file in table.files:
        if file.path.name in finished:
            continue
        try:
            with file.opened():
                link_or_copy(file.path, request.parts / file.path.name)
        except DamagedTable as error:
            _log.warning("%s; its images are scored again", error.received)


def _require_no_foreign_file(output: Location, ours: set[str]) -> None:
    names = [path.name for path in children(output)]
    foreign = sorted(name for name in names if not (name in ours or name.startswith(".") or is_clutter(name)))
    if PARTS_FOLDER in ours:
        foreign += [f"{PARTS_FOLDER}/{name}" for name in foreign_files_in_parts(output)]
    if foreign:
        raise RequestError(
            f"output {output} contains {foreign[0]!r}, which no scoring run wrote",
            "an empty or new folder",
            "Choose another `output`.",
        )


def _read_run(path: Location) -> _HeldRun:
    try:
        return _RUN.validate_python(read_json(path))
    except ValidationError:
        raise RequestError(
            f"{path} does not describe a scoring run", "a file written by a run", "Choose another `output`."
        ) from None
