"""The folders of retraining runs, `runs/RUN_ID/`, and cleanup after killed runs."""

import atexit
import shutil
import tempfile
from contextlib import suppress
from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.artifacts import new_run_id, remove_leftovers
from pixelmill.pipeline.registry import registered_runs
from pixelmill.pipeline.registry.store_format import require_store_format
from pixelmill.pipeline.storage import Location, cache_folder, workspace
from pixelmill.pipeline.storage.temporaries import hold, release

_log = getLogger(__name__)
_OWNER = ".owner"


def begin_run(store: Location, name: str) -> Path:
    """Create the folder of a new run, after removing what killed runs left in the store.

    The folder holds a lock file, which this process removes when it exits. A lock file that remains without a
    lock shows that the run was killed.

    Args:
        store: The artifacts root; for a remote one, its local workspace is used.
        name: The name of the recipe.

    Raises:
        RequestError: A newer pixelmill wrote the store.
    """
    require_store_format(store)
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
            # Without locks, killed runs cannot be detected, so nothing is removed.
            owner.unlink()
            return run
        if descriptor is not None:
            atexit.register(_end_run, owner, descriptor)
            return run


def remove_abandoned(store: Location) -> None:
    """Remove what killed processes left in a store and in the system's folder for temporary files.

    That is their temporary files and folders, and the folders of killed runs whose model was not registered.
    Locked files, and those that pixelmill did not create, are kept.
    """
    for place in (*places_of_leftovers(store), Path(tempfile.gettempdir())):
        remove_leftovers(place)
    for owner in sorted((workspace(store) / "runs").glob(f"*/{_OWNER}")):
        _remove_if_killed(owner, store)


def places_of_leftovers(store: Location) -> list[Path]:
    """The folders of a store in which killed processes may have left temporary files."""
    work = workspace(store)
    places = [work / "runs", work / "datasets", work / "checkpoints", cache_folder() / "bundles"]
    if (work / "models").is_dir():
        places += [work / "models", *(path for path in (work / "models").iterdir() if path.is_dir())]
    return places


def run_is_at_work(run: Path) -> bool:
    """Whether the process of a run, given by its folder, still runs."""
    owner = run / _OWNER
    try:
        descriptor = hold(owner) if owner.exists() else None
    except OSError:
        return False
    if descriptor is not None:
        release(descriptor)
        return False
    return owner.exists()


def _remove_if_killed(owner: Path, store: Location) -> None:
    try:
        descriptor = hold(owner)
    except OSError:
        return
    if descriptor is None:
        return  # The run is in progress.
    run = owner.parent
    try:
        remove_leftovers(run)
        if run.name in registered_runs(store):
            owner.unlink(missing_ok=True)
        else:
            shutil.rmtree(run, ignore_errors=True)
            _log.info("removed %s, left by a killed run", run)
    finally:
        release(descriptor)


def _end_run(owner: Path, descriptor: int) -> None:
    with suppress(OSError):
        owner.unlink()
    release(descriptor)
