"""The folders of retraining runs, `runs/RUN_ID/`, and what killed runs left in a store."""

import atexit
import shutil
import tempfile
from contextlib import suppress
from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.artifacts import new_run_id, remove_leftovers
from pixelmill.pipeline.artifacts.temporaries import hold, release
from pixelmill.pipeline.locations import cache_folder, workspace
from pixelmill.pipeline.registry import registered_runs

_log = getLogger(__name__)
_OWNER = ".owner"


def begin_run(store: Path, name: str) -> Path:
    """Make the folder of a new run of a recipe, after removing what killed runs left in the store.

    The folder belongs to this process until it ends. Its owner's file, which the process holds, is removed
    when the process ends by itself; where it is left and not held, the run was killed.

    Args:
        store: The artifacts root; of a remote one, its workspace on this machine is used.
        name: The recipe's name.
    """
    remove_abandoned(store)
    runs = workspace(store) / "runs"
    while True:
        run = runs / new_run_id(name)
        run.mkdir(parents=True)
        owner = run / _OWNER
        owner.touch()
        try:
            descriptor = hold(owner)
        except OSError:
            # A file system without locks: nothing there can be told to be left behind, and nothing goes.
            owner.unlink()
            return run
        if descriptor is not None:
            atexit.register(_end_run, owner, descriptor)
            return run


def remove_abandoned(store: Path) -> None:
    """Remove what killed processes left in a store and in the folder for temporary files.

    Temporary files and folders go wherever they are, and the folder of a killed run unless its model was
    registered. What a living process holds, and what carries no mark of ours, stays.
    """
    work = workspace(store)
    places = [work / "runs", work / "datasets", work / "checkpoints", cache_folder() / "bundles"]
    if (work / "models").is_dir():
        places += [work / "models", *(path for path in (work / "models").iterdir() if path.is_dir())]
    for place in places:
        remove_leftovers(place)
    remove_leftovers(Path(tempfile.gettempdir()))
    for owner in sorted((work / "runs").glob(f"*/{_OWNER}")):
        _remove_if_killed(owner, store)


def _remove_if_killed(owner: Path, store: Path) -> None:
    try:
        descriptor = hold(owner)
    except OSError:
        return
    if descriptor is None:
        return  # At work.
    run = owner.parent
    try:
        remove_leftovers(run)
        if run.name in registered_runs(store):
            owner.unlink(missing_ok=True)
        else:
            shutil.rmtree(run, ignore_errors=True)
            _log.info("removed %s, which a run that was killed left", run)
    finally:
        release(descriptor)


def _end_run(owner: Path, descriptor: int) -> None:
    with suppress(OSError):
        owner.unlink()
    release(descriptor)
