"""The faults, each on a machine with a retraining at work, and how the schedule recovers from it."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.registry import aliases_of, list_models, pending_versions
from tests.conftest import write_images
from tests.deployment.machine import ENDED, ROOT, Machine, exists, kill, wait_for

SECONDS_TO_WAIT = 900.0
SECONDS_TO_A_RENEWAL = 240.0
IMAGES = 40_000


class Recovery(NamedTuple):
    """What a fault led to.

    Attributes:
        states: The states of the run, in order.
        seconds: From the fault, or from the end of the outage, to a run that ended or went on.
        next: What the next run did.
    """

    states: list[str]
    seconds: float
    next: str


@dataclass
class Scene:
    """A machine whose store has a champion, and a retraining that would go on for hours.

    Attributes:
        folder: A folder that is not on the machine's small disk.
        machine: The machine.
        store: The store.
        endless: The deployment of the retraining that goes on.
        short: The deployment of one that ends after a few epochs.
        run: The run at work.
    """

    folder: Path
    machine: Machine
    store: Path
    endless: str
    short: str
    run: str = ""

    def start(self) -> None:
        """Start a run, if none is at work, and wait until it has written a checkpoint."""
        if self.run and self.machine.run(self.run)["state_type"] not in ENDED:
            return
        before = self.checkpoint_time()
        self.run = self.machine.begin(self.endless)
        wait_for("the process", lambda: self.machine.pid_of(self.run), SECONDS_TO_WAIT)
        wait_for("an epoch", lambda: self.checkpoint_time() > before, SECONDS_TO_WAIT)
        # It would keep a processor busy that what is measured needs.
        for process in psutil.Process(self.pid).children(recursive=True):
            process.nice(19)

    def checkpoint_time(self) -> float:
        """When the newest checkpoint was written."""
        return max((path.stat().st_mtime for path in self.store.glob("checkpoints/*.npz")), default=0.0)

    @property
    def pid(self) -> int:
        """The process of the run at work."""
        return self.machine.pid_of(self.run)

    def has_begun(self, output: Path) -> bool:
        """Whether a scoring has recorded its version in its output."""
        return any(output.glob("*/run.json"))

    def goes_on(self) -> bool:
        """Whether the run writes another checkpoint."""
        before = self.checkpoint_time()
        wait_for("another epoch", lambda: self.checkpoint_time() > before, SECONDS_TO_WAIT)
        return exists(self.pid)

    def end(self) -> None:
        """End the run at work, if there is one."""
        if self.run and self.machine.run(self.run)["state_type"] not in ENDED:
            kill(self.pid)
            self.machine.wait_for_state(self.run, "Crashed")
        self.run = ""

    def keep_disk_full(self, pid: int) -> None:
        """Take all space of the disk, also what is freed meanwhile, until a process has ended."""
        disk = self.machine.disk
        assert disk is not None

        def has_ended() -> bool:
            disk.fill()
            return not exists(pid)

        wait_for("the end of the process", has_ended, SECONDS_TO_WAIT, between_looks=0.02)
        disk.free()

    def check(self) -> None:
        """The champion is there, no version is half registered, no process is left without a run."""
        assert aliases_of(self.store, "digits")["champion"] >= 1
        assert pending_versions(self.store, "digits") == []
        assert all(
            (self.store / "models/digits" / str(model.version)).is_dir() for model in list_models(self.store)
        )

    def recover(self, since: float, *names: str) -> Recovery:
        """Wait until the run has ended, then until the next one has resumed it."""
        run, pid = self.run, self.pid
        self.machine.wait_for_state(run, *names, seconds=SECONDS_TO_WAIT)
        wait_for("the end of the process", lambda: not exists(pid), SECONDS_TO_WAIT)
        seconds = time.monotonic() - since
        self.check()
        self.start()
        resumed = wait_for(
            "the log of the next run", lambda: "resuming after epoch" in self.machine.log(self.run), 120
        )
        return Recovery(self.machine.states(run), seconds, "resumed" if resumed else "")


def kill_run(scene: Scene) -> Recovery:
    scene.start()
    kill(scene.pid)
    return scene.recover(time.monotonic(), "Crashed")


def kill_worker(scene: Scene) -> Recovery:
    scene.start()
    kill(worker_of(scene))
    started = time.monotonic()
    scene.machine.start_worker()
    return scene.recover(started, "Crashed")


def kill_worker_and_run(scene: Scene) -> Recovery:
    scene.start()
    kill(worker_of(scene), scene.pid)
    started = time.monotonic()
    scene.machine.start_worker()
    return scene.recover(started, "Crashed")


def kill_everything(scene: Scene, pause: float) -> Recovery:
    scene.start()
    kill(worker_of(scene), server_of(scene), scene.pid)
    time.sleep(pause)
    started = time.monotonic()
    scene.machine.start_server()
    scene.machine.start_worker()
    return scene.recover(started, "Crashed")


def reboot(scene: Scene) -> Recovery:
    """SIGTERM for the worker, then for the server, as systemd does at the end."""
    scene.start()
    machine = scene.machine
    kill(worker_of(scene), number=signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        machine.worker and machine.worker.wait(30)
    kill(server_of(scene), number=signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        machine.server and machine.server.wait(30)
    kill(worker_of(scene), server_of(scene), scene.pid)
    started = time.monotonic()
    machine.start_server()
    machine.start_worker()
    return scene.recover(started, "Crashed", "Cancelled", "Failed")


def restart_server(scene: Scene, pause: float) -> Recovery:
    """The run stays at work for longer than the 225 s after which a lease of Prefect's would be renewed."""
    scene.start()
    scene.machine.restart_server_after(pause)
    started = time.monotonic()
    assert scene.goes_on()
    seconds = time.monotonic() - started
    time.sleep(max(0, started + SECONDS_TO_A_RENEWAL - time.monotonic()))
    assert scene.goes_on()
    scene.machine.wait_for_state(scene.run, "Running")
    return Recovery(scene.machine.states(scene.run), seconds, "went on")


def stop_database(scene: Scene) -> Recovery:
    """The database goes away for 20 s, and comes back."""
    scene.start()
    assert scene.machine.database is not None
    scene.machine.database.stop("fast")
    time.sleep(20)
    scene.machine.database.start()
    started = time.monotonic()
    assert scene.goes_on()
    seconds = time.monotonic() - started
    scene.machine.wait_for_state(scene.run, "Running")
    return Recovery(scene.machine.states(scene.run), seconds, "went on")


def cancel(scene: Scene) -> Recovery:
    scene.start()
    started = time.monotonic()
    scene.machine.cancel(scene.run)
    return scene.recover(started, "Cancelled")


def cancel_after_outage(scene: Scene) -> Recovery:
    scene.start()
    scene.machine.restart_server_after(40)
    return cancel(scene)


def two_at_once(scene: Scene) -> Recovery:
    scene.start()
    started = time.monotonic()
    second = scene.machine.begin(scene.endless)
    scene.machine.wait_for_state(second, "Skipped", seconds=SECONDS_TO_WAIT)
    assert scene.goes_on()
    return Recovery(scene.machine.states(second), time.monotonic() - started, "the first went on")


def server_away_at_the_end(scene: Scene) -> Recovery:
    """The server goes away during the training of a short run, and comes back after its end."""
    machine = scene.machine
    scene.end()
    versions = len(list_models(scene.store))
    run = machine.begin(scene.short)
    wait_for("the training", lambda: "predict" in machine.log(run) or "images" in machine.log(run), 600)
    machine.restart_server_after(150)
    started = time.monotonic()
    wait_for("the version", lambda: len(list_models(scene.store)) > versions, SECONDS_TO_WAIT)
    machine.wait_for_state(run, "Completed", "Refused", seconds=SECONDS_TO_WAIT)
    scene.check()
    return Recovery(machine.states(run), time.monotonic() - started, "its version is registered")


def disk_full_in_training(scene: Scene) -> Recovery:
    """The disk is full, also for the server's SQLite database, until the run's process has ended."""
    scene.start()
    scene.keep_disk_full(scene.pid)
    started = time.monotonic()
    scene.machine.heal()
    return scene.recover(started, "Failed", "Crashed")


def disk_full_after_training(scene: Scene, has_begun: Callable[[Path], bool]) -> Recovery:
    """The disk fills up at a later stage of a short run, whose next run finds the training done."""
    scene.end()
    machine = scene.machine
    before = {path.name for path in (scene.store / "runs").iterdir()}
    versions = len(list_models(scene.store))

    def is_at_stage() -> bool:
        runs = (path for path in (scene.store / "runs").iterdir() if path.name not in before)
        return any(has_begun(path) for path in runs)

    run = machine.begin(scene.short)
    wait_for("the stage", is_at_stage, SECONDS_TO_WAIT, between_looks=0.02)
    scene.keep_disk_full(machine.pid_of(run))
    started = time.monotonic()
    # A server whose database was on that disk may not know of the end, which the next start finds out.
    machine.heal()
    machine.wait_for_state(run, "Failed", "Crashed", seconds=SECONDS_TO_WAIT)
    seconds = time.monotonic() - started
    scene.check()
    assert len(list_models(scene.store)) == versions
    again = machine.begin(scene.short)
    machine.wait_for_state(again, "Completed", "Refused", seconds=SECONDS_TO_WAIT)
    assert "resuming after epoch 2 of 2" in machine.log(again)
    assert len(list_models(scene.store)) == versions + 1
    scene.check()
    return Recovery(machine.states(run), seconds, "resumed; its version is registered")


def is_exporting(run: Path) -> bool:
    return any(
        run.glob("*held-out*")
    )  # The files on which parity is checked, for as long as the export takes.


def is_registering(run: Path) -> bool:
    return (run / "bundle/manifest.json").is_file()


def promote_during_scoring(scene: Scene) -> Recovery:
    """The alias moves to another version and back while a run scores with it."""
    before = end_with_two_versions(scene)
    machine, output = scene.machine, scene.machine.folder / "scored"
    place = {"images": str(images_to_score(scene)), "output": str(output), "store": str(scene.store)}
    score = machine.deploy(
        "score", "flows/batch_scoring.py:score", ROOT, model="digits@champion", workers=1, **place
    )
    run = machine.begin(score)
    wait_for("the scoring", lambda: scene.has_begun(output), SECONDS_TO_WAIT)
    move_alias(scene)
    machine.call("models", "rollback", "digits", "--store", str(scene.store))
    started = time.monotonic()
    assert machine.run(run)["state_name"] == "Running"
    machine.wait_for_state(run, "Completed", seconds=SECONDS_TO_WAIT)
    seconds = time.monotonic() - started
    assert versions_of(output) == {str(before)}
    scene.check()
    return Recovery(machine.states(run), seconds, "one version throughout")


def promote_after_kill_of_scoring(scene: Scene) -> Recovery:
    """A night's scoring is killed, the alias moves, and the night is run again."""
    before = end_with_two_versions(scene)
    machine, root = scene.machine, scene.machine.folder / "nights"
    place = {"images": str(images_to_score(scene)), "root": str(root), "store": str(scene.store)}
    score = machine.deploy(
        "score-nightly",
        "flows/nightly_scoring.py:score_nightly",
        ROOT,
        model="digits@champion",
        night="2026-11-25",
        max_drift=1.0,
        workers=1,
        **place,
    )
    output = root / "run_date=2026-11-25"
    killed = machine.begin(score)
    wait_for("the scoring", lambda: scene.has_begun(output), SECONDS_TO_WAIT)
    kill(machine.pid_of(killed))
    started = time.monotonic()
    machine.wait_for_state(killed, "Crashed", seconds=SECONDS_TO_WAIT)
    seconds = time.monotonic() - started
    move_alias(scene)
    again = machine.begin(score)
    machine.wait_for_state(again, "Completed", seconds=SECONDS_TO_WAIT)
    assert versions_of(output) == {str(before)}
    machine.call("models", "rollback", "digits", "--store", str(scene.store))
    scene.check()
    return Recovery(machine.states(killed), seconds, "finished with the version that it began with")


def end_with_two_versions(scene: Scene) -> int:
    """End the run at work, see to it that the store has two versions, and return the champion."""
    scene.end()
    if len(list_models(scene.store)) < 2:
        run = scene.machine.begin(scene.short)
        scene.machine.wait_for_state(run, "Completed", "Refused", seconds=SECONDS_TO_WAIT)
    return aliases_of(scene.store, "digits")["champion"]


def images_to_score(scene: Scene) -> Path:
    folder = scene.folder / "images"
    if not folder.exists():
        write_images(folder, IMAGES)
    return folder


def move_alias(scene: Scene) -> None:
    """Promote a version that is not the champion."""
    champion = aliases_of(scene.store, "digits")["champion"]
    other = next(model.version for model in list_models(scene.store) if model.version != champion)
    scene.machine.call("models", "promote", f"digits@{other}", "--store", str(scene.store))


def versions_of(output: Path) -> set[str]:
    """The versions of the model in the rows of a table, which has one for each image."""
    table = read_predictions(output)
    assert len(table) == IMAGES
    return set(map(str, table["model_version"]))


def server_of(scene: Scene) -> int:
    assert scene.machine.server is not None
    return scene.machine.server.pid


def worker_of(scene: Scene) -> int:
    assert scene.machine.worker is not None
    return scene.machine.worker.pid


FAULTS: dict[str, Callable[[Scene], Recovery]] = {
    "SIGKILL of the run": kill_run,
    "SIGKILL of the worker": kill_worker,
    "SIGKILL of worker and run": kill_worker_and_run,
    "SIGKILL of server, worker and run, back after 10 s": lambda scene: kill_everything(scene, 10),
    "SIGKILL of server, worker and run, back after 4 min": lambda scene: kill_everything(scene, 240),
    "SIGTERM of the worker, then of the server": reboot,
    "two retrainings at once": two_at_once,
    "server restarted during a run": lambda scene: restart_server(scene, 5),
    "PostgreSQL stopped for 20 s": stop_database,
    "cancelled": cancel,
    "cancelled after the server was away for 40 s": cancel_after_outage,
    "server away for 150 s at the end of training": server_away_at_the_end,
    "disk full during training": disk_full_in_training,
    "disk full during the export": lambda scene: disk_full_after_training(scene, is_exporting),
    "disk full before the registration": lambda scene: disk_full_after_training(scene, is_registering),
    "promotion and rollback during a scoring": promote_during_scoring,
    "SIGKILL of a nightly scoring, then a promotion": promote_after_kill_of_scoring,
}
