"""Runs that are killed at any point lose no finished work."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.predictions import PARTS_FOLDER, WORK_FOLDER, read_predictions
from pixelmill.pipeline.predictions.parts import is_part, part_name, part_shard_key, read_part
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.shards import cut_images, growing_limits
from tests.conftest import PIXELMILL, start_interruptible, write_images

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("kills")

IMAGES, WORKERS = 6000, 2
SIZES = {
    part_name(number): len(shard)
    for number, shard in enumerate(
        cut_images([ListedImage("", 0, 0, 0)] * IMAGES, growing_limits(), tapers=True)
    )
}
SHARDS = len(SIZES)
BAD = "03500.png"
# Files that appear in an output during a run, each of which is a point to kill it at.
_PLAN = f"{WORK_FOLDER}/plan.json"
_LISTED = [f"{WORK_FOLDER}/shards/{number:05d}.jsonl" for number in range(SHARDS)]
_ANSWERED = [f"{WORK_FOLDER}/parts/{part_name(number)}" for number in range(SHARDS)]
_COMMITTED = [PARTS_FOLDER, "report.html", "manifest.json"]
_WHOLE = [f"{WORK_FOLDER}/report.html", f"{WORK_FOLDER}/manifest.json"]
POINTS = [f"{WORK_FOLDER}/run.json", _PLAN, *_LISTED, *_ANSWERED, *_WHOLE, *_COMMITTED]
WRITTEN_EACH_TIME = {_PLAN, *_LISTED}
# The largest number of further observations after a point, before the run is killed.
MOST_LOOKS_AFTER = 300

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Scoring:
    """The command on a folder, and the table of an uninterrupted run."""

    images: Path
    store: Path
    environment: dict[str, str]
    undisturbed: pd.DataFrame

    def command(self, output: Path) -> list[str]:
        where = [str(self.images), "--output", str(output), "--store", str(self.store)]
        return [str(PIXELMILL), "score", "digits@1", *where, "--workers", str(WORKERS)]

    def start(self, output: Path) -> "subprocess.Popen[str]":
        return start_interruptible(self.command(output), self.environment)

    def finish(self, output: Path) -> None:
        done = subprocess.run(
            self.command(output), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.require_same_table(output)

    def require_same_table(self, output: Path) -> None:
        """Check that the output has the table of the uninterrupted run, and no other files."""
        rows = read_predictions(output)
        data = [name for name in rows.columns if name not in ("run_id", "scored_at")]
        pd.testing.assert_frame_equal(rows[data], self.undisturbed[data])
        assert rows["run_id"].nunique() == rows["scored_at"].nunique() == 1
        assert sorted(path.name for path in output.iterdir()) == sorted(_COMMITTED)
        assert sorted(path.name for path in (output / PARTS_FOLDER).iterdir()) == sorted(SIZES)


@pytest.fixture(scope="module")
def scoring(
    tmp_path_factory: pytest.TempPathFactory, trained_store: Path, environment: dict[str, str]
) -> Scoring:
    folder = tmp_path_factory.mktemp("kills")
    write_images(folder / "images", IMAGES)
    (folder / "images" / BAD).write_bytes(b"bad")
    # Temporary files of killed processes stay in the folder of the test.
    (folder / "tmp").mkdir()
    own = {**environment, "TMPDIR": str(folder / "tmp")}
    command = Scoring(folder / "images", trained_store, own, pd.DataFrame()).command(folder / "undisturbed")
    subprocess.run(command, env=own, check=True, capture_output=True)
    undisturbed = read_predictions(folder / "undisturbed")
    assert undisturbed["image_path"].tolist() == sorted(path.name for path in (folder / "images").iterdir())
    assert undisturbed.loc[undisturbed["status"] == "failed", "image_path"].tolist() == [BAD]
    return Scoring(folder / "images", trained_store, own, undisturbed)


def stamp(path: Path) -> Stamp | None:
    """A value that changes when a file is replaced, but not when it is moved."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def parts_of(output: Path) -> dict[str, Path]:
    """The finished parts of a run, whether or not they are committed."""
    folders = (output / PARTS_FOLDER, output / WORK_FOLDER / "parts")
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return {path.name: path for path in found if is_part(path.name)}


def processes_of(group: int) -> dict[int, str]:
    """The running processes of a process group, with their IDs and command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, own_group = process.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            if int(own_group) == group and state not in "ZX":
                found[int(process.name)] = process.joinpath("cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def workers_of(group: int) -> list[int]:
    return [process for process, command in processes_of(group).items() if "spawn_main" in command]


def wait_for(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> bool:
    """Wait for an event; returns whether it happened before the process ended."""
    while process.poll() is None:
        if happened():
            return True
    return False


def strike(process: "subprocess.Popen[str]", kill: int) -> str:
    """Send a signal to all processes of a run, wait for their end, and return their output."""
    os.killpg(process.pid, kill)
    _, errors = process.communicate()
    while processes_of(process.pid):
        pass
    return errors


def appears_anew(path: Path, looks_after: int = 0) -> Callable[[], bool]:
    """Whether a file exists that did not exist before, at the given observation after the first."""
    before, seen = stamp(path), 0

    def happened() -> bool:
        nonlocal seen
        seen += seen > 0 or stamp(path) not in (None, before)
        return seen > looks_after

    return happened


def kill_at(scoring: Scoring, output: Path, dice: random.Random) -> bool:
    """Start a run and kill it at a point; returns False if it ended before."""
    due = [point for point in POINTS if point in WRITTEN_EACH_TIME or not (output / point).exists()]
    point, looks_after = dice.choice(due), dice.choice((0, dice.randrange(MOST_LOOKS_AFTER)))
    unfinished = set(output.glob(f"{WORK_FOLDER}/parts/.*.pixelmill-tmp"))
    before = {name: stamp(path) for name, path in parts_of(output).items()}
    with scoring.start(output) as process:
        killed = wait_for(process, appears_anew(output / point, looks_after))
        if not killed:
            assert process.wait() == 0, process.stderr and process.stderr.read()
            return False
        strike(process, signal.SIGKILL)
    print(f"killed {looks_after} looks after {point}, with {len(before)} of {SHARDS} parts kept from before")
    # A worker had at most one unfinished shard, so no more than that was lost.
    assert len(set(output.glob(f"{WORK_FOLDER}/parts/.*.pixelmill-tmp")) - unfinished) <= WORKERS
    after = parts_of(output)
    for name, path in after.items():
        assert part_shard_key(path) is not None
        assert read_part(path).num_rows == SIZES[name]
    for name, was in before.items():
        assert stamp(after[name]) == was or has_failed_row(after[name])
    if (output / "manifest.json").exists():
        assert len(read_predictions(output)) == IMAGES
    return True


def has_failed_row(part: Path) -> bool:
    return "failed" in read_part(part, ["status"])["status"].to_pylist()


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_run_killed_repeatedly_gives_the_same_table(scoring: Scoring, tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)
    while kills > 0:
        output = tmp_path / f"out-{kills}"
        for _ in range(dice.randint(2, 5)):
            if not kill_at(scoring, output, dice):
                break
            kills -= 1
        kept = parts_of(output)
        was_done = (output / "manifest.json").exists()
        rows = {name: read_part(path).num_rows for name, path in kept.items()}
        failed = sum(has_failed_row(path) for path in kept.values())
        scoring.finish(output)
        computed = json.loads((output / "manifest.json").read_text())["computed"]
        assert computed == IMAGES - sum(rows.values()) + failed
        assert not was_done or computed == 1


@pytest.mark.slow
def test_a_run_over_a_list_that_is_killed_eight_times_gives_the_same_table(
    scoring: Scoring, tmp_path: Path
) -> None:
    rows = [(f"images/{path.name}", row) for row, path in enumerate(sorted(scoring.images.iterdir())[::-1])]
    rows[7] = rows[8] = rows[9]
    file = scoring.images.parent / "list.csv"
    file.write_text("image_path,row\n" + "".join(f"{path},{row}\n" for path, row in rows))
    listed = replace(scoring, images=file)
    undisturbed = listed.command(tmp_path / "undisturbed")
    subprocess.run(undisturbed, env=listed.environment, check=True, capture_output=True)
    listed = replace(listed, undisturbed=read_predictions(tmp_path / "undisturbed"))
    assert listed.undisturbed["row"].tolist() == [str(row) for _, row in rows]
    dice = random.Random(8)
    for _ in range(8):
        kill_at(listed, tmp_path / "out", dice)
    listed.finish(tmp_path / "out")


@pytest.mark.slow
def test_a_killed_fresh_run_leaves_the_old_table_or_the_new_one(scoring: Scoring, tmp_path: Path) -> None:
    output = tmp_path / "out"
    scoring.finish(output)
    old = set(read_predictions(output)["run_id"])
    dice = random.Random(0)
    for point in (_ANSWERED[1], *_WHOLE, PARTS_FOLDER, "report.html", "manifest.json") * 2:
        command = [*scoring.command(output), "--fresh"]
        with start_interruptible(command, scoring.environment) as process:
            wait_for(process, appears_anew(output / point, dice.choice((0, 1, 2, 50))))
            strike(process, signal.SIGKILL)
        rows = read_predictions(output)
        assert rows["image_path"].tolist() == scoring.undisturbed["image_path"].tolist()
        assert rows["run_id"].nunique() == 1
        if point == _ANSWERED[1]:
            assert set(rows["run_id"]) == old
        old = set(rows["run_id"])
    scoring.finish(output)


def test_a_run_killed_without_its_workers_can_resume(scoring: Scoring, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with scoring.start(output) as process:
        assert wait_for(process, appears_anew(output / _ANSWERED[1]))
        process.kill()
        process.communicate()
        while processes_of(process.pid):  # They end by themselves, or this test times out.
            pass
    scoring.finish(output)


@pytest.mark.parametrize("point", [_ANSWERED[0], _ANSWERED[2]])
def test_a_run_survives_the_kill_of_a_worker(scoring: Scoring, tmp_path: Path, point: str) -> None:
    output = tmp_path / "out"
    with scoring.start(output) as process:
        assert wait_for(process, appears_anew(output / point))
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    scoring.require_same_table(output)


@pytest.mark.parametrize("looks_after", [0, 1, 2])
def test_ctrl_c_works_while_workers_start(scoring: Scoring, tmp_path: Path, looks_after: int) -> None:
    looks = iter(range(-looks_after, 1))
    with scoring.start(tmp_path / "out") as process:
        assert wait_for(process, lambda: bool(workers_of(process.pid)) and next(looks) == 0)
        errors = strike(process, signal.SIGINT)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 5))], ids=str
)
def test_an_interrupted_run_says_how_to_resume(scoring: Scoring, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    output = tmp_path / "out"
    point = dice.choice([_PLAN, *_LISTED, *_ANSWERED[:-1]])
    with scoring.start(output) as process:
        assert wait_for(process, appears_anew(output / point, dice.randrange(MOST_LOOKS_AFTER)))
        errors = strike(process, signal.SIGINT)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last == (
        f"pixelmill: interrupted; finished shards are kept in {output}. Run the same command again to resume."
    )
    scoring.finish(output)
