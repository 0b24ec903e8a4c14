"""Run every fault on SQLite and on PostgreSQL, and print the table of docs/deployment.md.

Both databases are at work at once, each with processes of its own, since most of the time is spent waiting.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deployment.faults import FAULTS, SECONDS_TO_WAIT, Scene
from tests.deployment.machine import ROOT, Machine
from tests.deployment.small_disk import is_possible, small_disk
from tests.flows.conftest import postgresql_server

DATABASES = ("SQLite", "PostgreSQL")
SIZE_OF_DISK = "500m"
QUICKLY = (
    *("promotion.min_accuracy=0", "dataset.test_fraction=0.05"),
    *("evaluation.robustness_images=0", "evaluation.inside=false"),
)


@contextmanager
def scene_on(database: str, trained: Path | None) -> Iterator[Scene]:
    """A machine with that database, a worker, and a champion: of the store, or one that is trained first."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pixelmill-faults-")))
        disk = stack.enter_context(small_disk(folder, SIZE_OF_DISK)) if is_possible() else None
        place = disk.place if disk else folder
        machine = Machine(place / "home", disk=disk)
        machine.folder.mkdir()
        if database == "PostgreSQL":
            machine.database = stack.enter_context(postgresql_server())
            machine.settings = {"PREFECT_API_DATABASE_CONNECTION_URL": machine.database.url}
        stack.callback(machine.stop)
        machine.start_server()
        store = place / "store"

        def deploy(name: str, epochs: int) -> str:
            return machine.deploy(
                name,
                "flows/retraining.py:retrain",
                ROOT,
                recipe="digits",
                overrides=[f"training.epochs={epochs}", *QUICKLY],
                store=str(store),
                retrain_anyway=True,
            )

        short = deploy("retrain", 2)
        machine.start_worker()
        if trained:
            shutil.copytree(trained, store)
        else:
            machine.wait_for_state(machine.begin(short), "Completed", seconds=SECONDS_TO_WAIT)
        yield Scene(folder, machine, store, deploy("retrain-endless", 1_000_000), short)


def faults_on(database: str, only: list[str]) -> Iterator[str]:
    """The faults that can be tried on a database."""
    for name in FAULTS:
        if only and not any(word in name for word in only):
            continue
        if name.startswith("PostgreSQL") and database != "PostgreSQL":
            continue
        if name.startswith("disk full") and not is_possible():
            print(f"{name}: not tried, since user namespaces are not permitted here", file=sys.stderr)
            continue
        yield name


def try_faults(database: str, only: list[str], trained: Path | None) -> int:
    """Print a row for each fault; returns how many the schedule did not recover from."""
    failed = 0
    with scene_on(database, trained) as scene:
        for name in faults_on(database, only):
            begun = time.monotonic()
            try:
                found = FAULTS[name](scene)
            except Exception:  # noqa: BLE001  # The other faults are tried all the same.
                traceback.print_exc()
                failed += 1
                scene.run = ""
                print(f"| {database} | {name} | not recovered | | |", flush=True)
                continue
            states = ", ".join(found.states)
            print(f"| {database} | {name} | {states} | {found.seconds:.0f} | {found.next} |", flush=True)
            print(f"{database}, {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="only faults whose name contains this")
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument(
        "--store", type=Path, help="a store with the model digits, to copy instead of training one"
    )
    options = parser.parse_args()
    databases = options.database or DATABASES
    if len(databases) == 1:
        return min(try_faults(databases[0], options.only, options.store), 1)
    only = [word for name in options.only for word in ("--only", name)]
    store = ["--store", str(options.store)] if options.store else []
    command = [sys.executable, "-m", "tests.deployment", *only, *store]
    print("| database | fault | states of the run | seconds to recover | afterwards |")
    print("|---|---|---|---|---|", flush=True)
    # A row is printed by its process as soon as it is known.
    running = [subprocess.Popen([*command, "--database", name]) for name in databases]
    return max([process.wait() for process in running])


if __name__ == "__main__":
    sys.exit(main())
