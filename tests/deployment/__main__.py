"""Run every fault on SQLite and on PostgreSQL, and print the table of docs/deployment.md."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deployment.faults import FAULTS, SECONDS_TO_WAIT, Scene
from tests.deployment.machine import ROOT, Machine
from tests.flows.conftest import postgresql_server

DATABASES = ("SQLite", "PostgreSQL")


@contextmanager
def scene_on(database: str) -> Iterator[Scene]:
    """A machine with that database, a champion, and a worker."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pixelmill-faults-")))
        machine = Machine(folder / "home")
        machine.folder.mkdir()
        if database == "PostgreSQL":
            machine.database = stack.enter_context(postgresql_server())
            machine.settings = {"PREFECT_API_DATABASE_CONNECTION_URL": machine.database.url}
        stack.callback(machine.stop)
        machine.start_server()
        store = folder / "store"
        place = {"store": str(store), "retrain_anyway": True}
        bars = "promotion.min_accuracy=0"
        entrypoint = "flows/retraining.py:retrain"

        def deploy(epochs: int) -> str:
            overrides = [f"training.epochs={epochs}", bars]
            return machine.deploy("retrain", entrypoint, ROOT, recipe="digits", overrides=overrides, **place)

        short = deploy(2)
        machine.start_worker()
        first = machine.begin(short)
        machine.wait_for_state(first, "Completed", seconds=SECONDS_TO_WAIT)
        endless = machine.deploy(
            "retrain-endless",
            entrypoint,
            ROOT,
            recipe="digits",
            overrides=["training.epochs=1000000", bars],
            **place,
        )
        yield Scene(machine, store, endless, short)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="only faults whose name contains this")
    parser.add_argument("--database", choices=DATABASES, action="append")
    options = parser.parse_args()
    failed = 0
    print("| database | fault | states of the run | seconds to recover | afterwards |")
    print("|---|---|---|---|---|")
    for database in options.database or DATABASES:
        with scene_on(database) as scene:
            for name, fault in FAULTS.items():
                if options.only and not any(word in name for word in options.only):
                    continue
                if name.startswith("PostgreSQL") and scene.machine.database is None:
                    continue
                begun = time.monotonic()
                try:
                    scene.start()
                    found = fault(scene)
                except Exception:  # noqa: BLE001  # The other faults are tried all the same.
                    traceback.print_exc()
                    failed += 1
                    scene.run = ""
                    print(f"| {database} | {name} | not recovered | | |", flush=True)
                    continue
                states = ", ".join(found.states)
                print(f"| {database} | {name} | {states} | {found.seconds:.0f} | {found.next} |", flush=True)
                print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
