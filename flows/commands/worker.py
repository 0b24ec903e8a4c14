"""`pixelmill worker`."""

import os
import socket
import sys
from typing import Annotated

import typer

from pixelmill.flows.extras import require_extras
from pixelmill.pipeline.display import printable


def worker(
    pool: Annotated[str, typer.Option("--pool", help="The work pool whose runs it starts.")] = "pixelmill",
    name: Annotated[
        str,
        typer.Option("--name", help="Its name; one worker of a name at a time.", show_default="the host's"),
    ] = "",
    heal_only: Annotated[
        bool, typer.Option("--heal-only", help="Heal this host's runs, and end: for ExecStartPre of systemd.")
    ] = False,
) -> None:
    """Heal the flow runs of this host that have lost their process, then start what is scheduled.

    A run whose process was killed together with its worker, by a power failure or a reboot, is Running for
    Prefect. It becomes Crashed, and the next run resumes it. Pixelmill's automations are brought up to date.
    Then Prefect's process worker takes the place of this command.
    """
    require_extras()
    from pixelmill.flows.worker_start import (
        apply_automations_if_possible,
        hold_worker_name,
        prepare_environment,
        require_prefect_server,
    )

    named = name or socket.gethostname()
    require_prefect_server()
    from pixelmill.flows.healing import heal_runs

    is_free = hold_worker_name(named, required=not heal_only)
    for line in heal_runs(named if is_free else ""):
        print(printable(line), file=sys.stderr, flush=True)
    if heal_only:
        return
    prepare_environment()
    for line in apply_automations_if_possible():
        print(printable(line), file=sys.stderr, flush=True)
    start = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", named]
    os.execv(sys.executable, [*start, "--type", "process"])  # noqa: S606  # No shell is involved.
