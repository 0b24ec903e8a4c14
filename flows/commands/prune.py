"""`pixelmill prune`."""

import re
from datetime import timedelta
from typing import Annotated, Any

import typer
from humanize import naturalsize

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.flows.deployment_outputs import deployment_outputs
from pixelmill.flows.old_runs import OldRun, find_old_runs, remove_old_runs
from pixelmill.flows.server_record import find_server, read_record
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.prune import Candidate, PruneRequest

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw]?)", re.IGNORECASE)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MOST_DAYS = 36_500


def prune(
    keep: Annotated[
        int,
        typer.Option("--keep", help="How many versions, runs and datasets of a model to keep, however old."),
    ] = 3,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Remove only what is older: 12h, 14d or 3w.")
    ] = "14d",
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed; without it, only list.")] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """List what no alias, rollback or running job needs; with --yes, remove exactly that."""
    check_store(store)
    from pixelmill.pipeline.prune.prune import find_candidates, remove_candidates

    age, api = parse_age(older_than), find_server(store)
    request = PruneRequest(store, keep, age, deployment_outputs(api, read_record(store)))
    candidates = find_candidates(request)
    runs = find_old_runs(api, keep, age) if api else []
    removed = remove_candidates(request, candidates) if yes else []
    if yes and api:
        remove_old_runs(api, runs)
    if as_json:
        print_json(
            {
                "removed": yes,
                "bytes": sum(each.size for each in (removed if yes else candidates)),
                "candidates": [_describe(each, removed if yes else None) for each in candidates],
                "flow_runs": [vars(run) for run in runs],
            }
        )
        return
    _print(candidates, removed if yes else None, runs)


def parse_age(text: str) -> timedelta:
    """Convert an age such as `12h`, `14d` or `3w`; the default unit is days.

    Raises:
        RequestError: The text is not an age.
    """
    found = _AGE.fullmatch(text.strip())
    age = (
        float(found[1]) * _UNITS[found[2].lower() or "d"] if found and float(found[1]) <= _MOST_DAYS else None
    )
    if age is None:
        raise RequestError(f"`older_than` {text}", "an age, such as 12h, 14d or 3w", "Correct the option.")
    return age


def _describe(candidate: Candidate, removed: list[Candidate] | None) -> dict[str, Any]:
    return {
        "kind": candidate.kind,
        "name": candidate.name,
        "paths": [str(path) for path in candidate.paths],
        "bytes": candidate.size,
        "reason": candidate.reason,
        "removed": removed is not None and candidate in removed,
    }


def _print(candidates: list[Candidate], removed: list[Candidate] | None, runs: list[OldRun]) -> None:
    if not candidates and not runs:
        print("Nothing may be removed.")
        return
    rows: list[tuple[str, str, str, str]] = []
    for each in candidates:
        kept = " (kept: it is in use by now)" if removed is not None and each not in removed else ""
        rows.append((each.kind, printable(each.name), naturalsize(each.size), each.reason + kept))
    if runs:
        rows.append(("flow runs", f"{len(runs):,} runs", "", f"the last ended {runs[-1].ended}"))
    print(render_table(rows, right=(2,)))
    size = naturalsize(sum(each.size for each in (candidates if removed is None else removed)))
    if removed is None:
        print(f"{size} would be removed. Nothing was; add --yes to remove these.")
    else:
        print(f"{size} removed.")
