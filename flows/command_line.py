"""The `pixelmill` command. Each command imports what it needs when it runs, to start quickly."""

import io
import os
import sys

import typer

from pixelmill.flows.commands.audit import audit
from pixelmill.flows.commands.console import (
    explain_remote_error,
    name_options,
    show_pipeline_warnings,
)
from pixelmill.flows.commands.demo import demo
from pixelmill.flows.commands.deploy import deploy
from pixelmill.flows.commands.down import down
from pixelmill.flows.commands.explain import explain
from pixelmill.flows.commands.export import export
from pixelmill.flows.commands.forget import forget
from pixelmill.flows.commands.models import models_app
from pixelmill.flows.commands.predict import predict
from pixelmill.flows.commands.prune import prune
from pixelmill.flows.commands.recipes import recipes_app
from pixelmill.flows.commands.retrain import retrain
from pixelmill.flows.commands.review import review
from pixelmill.flows.commands.score import score
from pixelmill.flows.commands.status import status
from pixelmill.flows.commands.up import up
from pixelmill.flows.commands.verify import verify
from pixelmill.flows.commands.worker import worker
from pixelmill.flows.general_options import quietable, take_general_options
from pixelmill.flows.interrupts import handling_signals
from pixelmill.flows.os_errors import explain_os_error
from pixelmill.flows.prefect_session import ServerLostError
from pixelmill.pipeline.errors import ExitCode, PixelmillError
from pixelmill.pipeline.storage import is_remote_error

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(take_general_options)
COMMANDS = (
    *(demo, retrain, audit, predict, score, review, export, verify, explain),
    *(up, down, worker, deploy, status, prune, forget),
)
for command in COMMANDS:
    app.command()(quietable(command))
for name, group in (("models", models_app), ("recipes", recipes_app)):
    for registered in group.registered_commands:
        if registered.callback is not None:
            registered.callback = quietable(registered.callback)
    app.add_typer(group, name=name, no_args_is_help=False)


def main() -> None:
    """Run the command line; known errors are reported in one line, with their exit code."""
    show_pipeline_warnings()
    # Printing a file name that is not valid text must not fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with handling_signals():
            app()
    except PixelmillError as error:
        print(f"pixelmill: {name_options(str(error))}", file=sys.stderr, flush=True)
        if isinstance(error, ServerLostError):
            os._exit(error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"pixelmill: {explain_os_error(error)}", file=sys.stderr)
        sys.exit(ExitCode.WORK_FAILED)
    except Exception as error:
        if not is_remote_error(error):
            raise
        print(f"pixelmill: {explain_remote_error(error)}", file=sys.stderr)
        sys.exit(ExitCode.WORK_FAILED)


if __name__ == "__main__":
    main()
