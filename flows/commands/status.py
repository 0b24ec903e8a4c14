"""`pixelmill status`."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from humanize import naturalsize, naturaltime

from pixelmill.flows import attention
from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json
from pixelmill.flows.server_api import ServerApi, ServerUnavailableError
from pixelmill.flows.server_record import ServerRecord, find_server, read_record
from pixelmill.flows.server_status import ServerStatus, read_server
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import ExitCode
from pixelmill.pipeline.status import measure_disk, read_drift, read_models
from pixelmill.pipeline.storage import Location, parse_location

_SECONDS = 10.0


def status(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Show champions, deployments, runs, drift and disk; exit code 1 if something needs a person."""
    check_store(store)
    described = describe(store)
    if as_json:
        print_json(described)
    else:
        _print(described)
    if described["needs_attention"]:
        raise typer.Exit(ExitCode.WORK_FAILED)


def describe(store: Location) -> dict[str, Any]:
    """The state of a store and of its Prefect server, as printed by `status --json`."""
    record, api = read_record(store), find_server(store)
    need = list(attention.processes_in_need(record))
    server: ServerStatus | None = None
    if api is not None:
        api = ServerApi(api.url, _SECONDS)
        try:
            server = read_server(api, is_this_host=record is not None and record.api_url == api.url)
        except ServerUnavailableError as error:
            need.append(str(error))
    models, disk = read_models(store), measure_disk(store)
    drift = read_drift(_outputs(server, record))
    if server is not None:
        need += attention.workers_in_need(server.workers)
        need += attention.deployments_in_need(server)
    need += attention.models_in_need(models)
    need += attention.drift_in_need(drift)
    need += attention.disk_in_need(disk)
    deployments = server.deployments if server else ()
    coming = sorted(
        (each.next_run, each.name) for each in deployments if each.next_run is not None and not each.paused
    )
    return {
        "models": [asdict(model) for model in models],
        "deployments": [asdict(deployment) for deployment in deployments],
        "runs": [asdict(run) for run in server.runs] if server else [],
        "next": {"deployment": coming[0][1], "at": coming[0][0]} if coming else None,
        "drift": [asdict(table) for table in drift],
        "disk": asdict(disk),
        "server": {"url": api.url, "page": api.page, "alive": server is not None} if api else None,
        "worker": [asdict(worker) for worker in server.workers] if server else [],
        "needs_attention": need,
    }


def _outputs(server: ServerStatus | None, record: ServerRecord | None) -> list[Location]:
    """Where the deployments write tables; a relative folder is relative to that of the worker's runs."""
    named = sorted({name for each in server.deployments for name in each.outputs}) if server else []
    home = Path(record.home) if record else Path()
    places = [parse_location(name) for name in named]
    return [home / place if isinstance(place, Path) else place for place in places]


def _print(described: dict[str, Any]) -> None:
    server, disk = described["server"], described["disk"]
    workers = [worker for worker in described["worker"] if worker["alive"]]
    rows = [_model_row(model) for model in described["models"]] or [("model", "none yet", "", "")]
    rows += [_deployment_row(each) for each in described["deployments"]]
    rows += [("run", run["name"], run["state"], _ago(run["since"])) for run in described["runs"]]
    rows += [
        (
            "drift",
            each["table"],
            each["model"],
            ", ".join((each["verdict"], *each["drifted"])),
        )
        for each in described["drift"]
    ]
    kinds = ", ".join(f"{kind} {naturalsize(size)}" for kind, size in disk["kinds"].items() if size)
    rows.append(("disk", disk["folder"], f"{naturalsize(disk['free'])} free", kinds))
    if server is None:
        rows.append(("server", "none", "", "start one with `pixelmill up`"))
    else:
        alive = "responds" if server["alive"] else "does not respond"
        rows.append(("server", server["page"], alive, f"{len(workers)} of its workers alive"))
    print(render_table([tuple(map(printable, row)) for row in rows]))
    for line in described["needs_attention"]:
        print(printable(f"! {line}"))


def _count(versions: int) -> str:
    return f"{versions:,} version{'s' * (versions != 1)}"


def _model_row(model: dict[str, Any]) -> tuple[str, str, str, str]:
    if model["champion"] is None:
        return "model", model["name"], "no champion", _count(model["versions"])
    accuracy = "unknown" if model["accuracy"] is None else f"{model['accuracy']:.4f}"
    facts = f"accuracy {accuracy} on {model['test_images']:,} images, {_count(model['versions'])}"
    return "model", f"{model['name']}@{model['champion']}", _ago(model["created_at"]), facts


def _deployment_row(deployment: dict[str, Any]) -> tuple[str, str, str, str]:
    last, success, coming = deployment["last_run"], deployment["last_success"], deployment["next_run"]
    facts = [f"last success {_ago(success)}" if success else "no success yet"]
    if coming:
        facts.append(f"next {_ago(coming)}")
    return "deployment", deployment["name"], last["state"] if last else "never ran", ", ".join(facts)


def _ago(timestamp: str) -> str:
    moment = datetime.fromisoformat(timestamp)
    return naturaltime(datetime.now(moment.tzinfo) - moment)
