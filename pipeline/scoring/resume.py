"""Which run an output holds: one to resume, one to replace, or one that is not to be touched."""

from logging import getLogger
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import MANIFEST, new_run_id, now, read_json, remove_folder, write_json
from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions.columns import RunFacts
from pixelmill.pipeline.predictions.layout import CSV_FILE, PARTS_FOLDER, REPORT_FILE
from pixelmill.pipeline.predictions.publication import (
    awaits_publication,
    foreign_files_in_parts,
    link_or_copy,
    publish_table,
)
from pixelmill.pipeline.predictions.stored import DamagedTable, listed_table
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.storage import children, is_remote

_log = getLogger(__name__)
_RUN_FILE = "run.json"
_TABLE = {MANIFEST, REPORT_FILE, CSV_FILE, PARTS_FOLDER}


def find_run(request: ScoringRequest, identity: dict[str, Any]) -> RunFacts | None:
    """The run that this request resumes, or None where it begins one.

    An unfinished run counts before a finished one. With `fresh`, only an unfinished run that was
    itself begun fresh is resumed; whatever else the output holds is replaced at the commit.

    Args:
        request: What is asked for.
        identity: What must be the same for two requests to be one run.

    Raises:
        RequestError: The output holds another run, or files that no run wrote.
    """
    output, unfinished = request.output, request.work / _RUN_FILE
    runs = [path for path in (unfinished, output / MANIFEST) if path.is_file()]
    held = _read_run(runs[0]) if runs else None
    _require_no_foreign_file(output, _TABLE if held else set())
    if held is None:
        return None
    differing = [key for key in identity if held["request"].get(key) != identity[key]]
    if request.fresh:
        resumes = not differing and runs[0] == unfinished and held.get("fresh") is True
        return RunFacts(**held["run"]) if resumes else None
    if differing:
        key = differing[0]
        raise RequestError(
            f"output {output} holds a run with {key} {held['request'].get(key)!r}",
            f"{identity[key]!r}, as asked for now",
            "Choose another `output`, or replace that run with `fresh`.",
        )
    # Of a finished CSV table no parts are left to keep: scoring it once more is a new run.
    return RunFacts(**held["run"]) if runs[0] == unfinished or request.format == "parquet" else None


def begin_run(request: ScoringRequest, identity: dict[str, Any], run: RunFacts | None) -> RunFacts:
    """Write down which run this is, before any part of it is written, and take up its finished parts.

    Args:
        request: What is asked for.
        identity: See `find_run`.
        run: The run to resume; None for a new one.
    """
    if awaits_publication(request.output):
        publish_table(request.output)
    resumes = run is not None and (request.work / _RUN_FILE).is_file()
    if not resumes:
        remove_folder(request.parts)
    if not is_remote(request.parts):
        request.parts.mkdir(parents=True, exist_ok=True)
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
    write_json(request.work / _RUN_FILE, {"request": identity, "run": vars(run), "fresh": request.fresh})
    return run


def _adopt_parts(request: ScoringRequest, run: RunFacts) -> None:
    """Have the parts of the finished table among those of the run, where it is the table of this run.

    A part that is not the one which the manifest lists is left out, and its images are scored again.
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


def _require_no_foreign_file(output: Path, ours: set[str]) -> None:
    names = [path.name for path in children(output)]
    foreign = sorted(name for name in names if not (name in ours or name.startswith(".") or is_clutter(name)))
    if PARTS_FOLDER in ours:
        foreign += [f"{PARTS_FOLDER}/{name}" for name in foreign_files_in_parts(output)]
    if foreign:
        raise RequestError(
            f"output {output} holds {foreign[0]!r}, which no scoring run wrote",
            "an empty or a new folder",
            "Choose another `output`.",
        )


def _read_run(path: Path) -> dict[str, Any]:
    content = read_json(path)
    try:
        RunFacts(**content["run"])
        content["request"].get("model")
    except (TypeError, KeyError, AttributeError):
        raise RequestError(
            f"{path} tells of no scoring run", "what a scoring run wrote", "Choose another `output`."
        ) from None
    run: dict[str, Any] = content
    return run
