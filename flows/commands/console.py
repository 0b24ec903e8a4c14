"""Terminal output of commands: one line per message of a stage, and one line for an error."""

import logging
import re
import sys

import typer

from pixelmill.pipeline.display import printable, without_passwords
from pixelmill.pipeline.progress import is_quiet

_FIELD = re.compile(r"`(\w+)`")
_OVERRIDE = re.compile(r"`(\w+(?:\.\w+)*=[^`]*)`")
_options: dict[str, str] = {}


def remember_options(context: typer.Context) -> None:
    """Remember the options of the running command by the names of their parameters."""
    _options.clear()
    for parameter in context.command.params:
        if parameter.name and parameter.param_type_name == "option":
            _options[parameter.name] = parameter.opts[0]


def name_options(message: str) -> str:
    """Replace the fields in a message, which are in backquotes, by the options of the running command.

    `` `top_k` `` becomes `--top-k`, and `` `training.epochs=3` `` becomes `--set training.epochs=3`. Fields
    without an option are unchanged.
    """
    message = _FIELD.sub(lambda found: _options.get(found[1], found[0]), message)
    if "overrides" in _options:
        message = _OVERRIDE.sub(lambda found: f"{_options['overrides']} {found[1]}", message)
    return message


class StageLines(logging.Handler):
    """Prints the messages of stages, except errors, which the command prints once."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record on standard error."""
        if record.levelno >= logging.ERROR or (record.levelno < logging.WARNING and is_quiet()):
            return
        if record.levelno < logging.WARNING and record.name == "prefect.flow_runs":
            return  # "Beginning flow run ..."
        stage = getattr(record, "task_name", "")
        if stage and record.levelno < logging.WARNING and "Finished in state" in record.getMessage():
            return
        message = printable(without_passwords(name_options(record.getMessage())))
        print(f"{stage:9} {message}", file=sys.stderr, flush=True)


def show_pipeline_warnings() -> None:
    """Print messages of the pipeline on the terminal."""
    logger = logging.getLogger("pixelmill.pipeline")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(StageLines())


def explain_remote_error(error: Exception) -> str:
    """Describe an error of a remote store that persists after retries, in one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"the remote store does not work ({said}); expected successful requests. Finished work is kept: "
        "run the same command again when the store works."
    )
