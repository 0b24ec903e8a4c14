"""`pixelmill deploy`."""

from pathlib import Path
from typing import Annotated

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, check_store, print_json, shown
from pixelmill.flows.commands.up import Home
from pixelmill.flows.deployments import find_prefect_file, register_deployments, write_templates
from pixelmill.flows.extras import require_prefect
from pixelmill.flows.server_record import find_server, server_folder
from pixelmill.flows.server_settings import worker_environment
from pixelmill.pipeline.errors import RequestError


def deploy(
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Write the deployment files there instead, for changes."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="A prefect.yaml; default: that of this folder or deploy/, or the package's."
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Register the deployments at the Prefect server of PREFECT_API_URL, or at that of `pixelmill up`."""
    if write is not None:
        written = write_templates(write)
        if as_json:
            print_json({"written": list(map(str, written))})
        else:
            print("\n".join(shown(path) for path in written))
        return
    require_prefect()
    check_store(store)
    api = find_server(store)
    if api is None:
        raise RequestError(
            "PREFECT_API_URL, which is not set",
            "the address of a Prefect server's API",
            "Start a server with `pixelmill up`, or set the variable: http://HOST:4200/api.",
        )
    place = home.resolve()
    environment = worker_environment(server_folder(store), api.url, store, place)
    registered = register_deployments(api, file or find_prefect_file(place), store, place, environment)
    if as_json:
        print_json({"api": api.url, "file": registered.file, "deployments": list(registered.deployments)})
    else:
        print(f"{', '.join(registered.deployments)}, as in {registered.file}, at {api.page}")
