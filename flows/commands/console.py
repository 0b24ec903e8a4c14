"""What a person at the terminal sees of a flow: a line a stage, and one line for an error."""

import errno
import logging
import re
import sys

import typer

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.progress import is_quiet

_FIELD = re.compile(r"`(\w+)`")
_OVERRIDE = re.compile(r"`(\w+(?:\.\w+)*=[^`]*)`")
_options: dict[str, str] = {}


def know_options(context: typer.Context) -> None:
    """Learn the options of the command that runs, by the names of its parameters."""
    _options.clear()
    for parameter in context.command.params:
        if parameter.name and parameter.param_type_name == "option":
            _options[parameter.name] = parameter.opts[0]


def name_options(message: str) -> str:
    """Write the fields that a message names in backquotes as the options of the command that runs.

    `` `top_k` `` becomes `--top-k`, and `` `training.epochs=3` `` becomes `--set training.epochs=3`. What the
    command has no option for stays as it is.
    """
    message = _FIELD.sub(lambda found: _options.get(found[1], found[0]), message)
    if "overrides" in _options:
        message = _OVERRIDE.sub(lambda found: f"{_options['overrides']} {found[1]}", message)
    return message


class StageLines(logging.Handler):
    """Shows what stages report; errors are left to the command, which says them once."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's line on standard error."""
        if record.levelno >= logging.ERROR or (record.levelno < logging.WARNING and is_quiet()):
            return
        if record.levelno < logging.WARNING and record.name == "prefect.flow_runs":
            return  # "Beginning flow run ..."
        stage = getattr(record, "task_name", "")
        if stage and record.levelno < logging.WARNING and "Finished in state" in record.getMessage():
            return
        print(f"{stage:9} {printable(name_options(record.getMessage()))}", file=sys.stderr, flush=True)


def show_pipeline_warnings() -> None:
    """Have the pipeline's own messages on the terminal."""
    logger = logging.getLogger("pixelmill.pipeline")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(StageLines())


def explain_os_error(error: OSError) -> str:
    """One line for what the system refused: a full disk, a missing permission."""
    place = f" ({printable(str(error.filename))})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{error.strerror}{place}; expected room to write. Nothing finished is lost: free some "
            "room and run the same command again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}{place}; expected a place this user may write to. Choose another."
    return f"{error.strerror or error}{place}; expected the system to allow it. Look at the path."


def explain_remote_error(error: Exception) -> str:
    """One line for what a remote store did not do, however often it was asked."""
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"the remote store does not do its work ({said}); expected it to answer. Nothing finished is lost: "
        "run the same command again when it does."
    )
