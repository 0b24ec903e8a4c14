"""The log of a model: it loses no move, whatever is killed."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.registry import (
    aliases_of,
    log_refusal,
    promote_version,
    read_log,
    rollback_alias,
)
from pixelmill.pipeline.registry.alias_file import change_aliases
from pixelmill.pipeline.registry.log import LogEntry
from tests.pipeline.promotion.versions import register

ROOT = Path(__file__).parents[3]
MOVES = 25


def move(store: Path, by: str, number: int) -> None:
    """Move the alias to the other version without verifying any file, and log it."""

    def change(content: object) -> None:
        before = content.aliases.get("champion")  # type: ignore[attr-defined]
        content.aliases["champion"] = number  # type: ignore[attr-defined]
        content.add_entry(  # type: ignore[attr-defined]
            LogEntry(alias="champion", before=before, to=number, action="promoted", by=by, reason="a test")
        )

    change_aliases(store, "pets", change)


def test_moves_refusals_and_rollbacks_are_logged_in_their_order(tmp_path: Path) -> None:
    for _ in range(3):
        register(tmp_path, [0, 1, 2])
    promote_version(tmp_path, "pets", 1, "champion", reason="the first", by="run-1")
    log_refusal(tmp_path, "pets", 2, "champion", reason="worse", by="run-2", tested_on="ab")
    promote_version(tmp_path, "pets", 3, "champion", by="run-3")
    promote_version(tmp_path, "pets", 3, "champion")
    rollback_alias(tmp_path, "pets", "champion")
    assert [
        (entry.action, entry.before, entry.to, entry.by, entry.reason) for entry in read_log(tmp_path, "pets")
    ][:3] == [
        ("promoted", None, 1, "run-1", "the first"),
        ("refused", 1, 2, "run-2", "worse"),
        ("promoted", 1, 3, "run-3", "by hand, without a gate"),
    ]
    last = read_log(tmp_path, "pets")[-1]
    assert (last.action, last.before, last.to) == ("rolled back", 3, 1)
    line = json.loads(last.to_json())
    assert set(line) == {"at", "alias", "from", "to", "action", "by", "reason", "tested_on"}


def test_a_lost_entry_is_named(tmp_path: Path) -> None:
    for number in (1, 2, 1):
        move(tmp_path, "run", number)
    (tmp_path / "models/pets/log/00000002.json").unlink()
    with pytest.raises(WorkError, match="lacks entry 2 of 3"):
        read_log(tmp_path, "pets")


def move_many(store: Path, name: str) -> None:
    for number in range(MOVES):
        move(store, name, number + 1)


def test_moves_of_several_processes_at_once_are_all_logged(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=move_many, args=(tmp_path, f"run-{own}")) for own in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    entries = read_log(tmp_path, "pets")
    assert len(entries) == 4 * MOVES
    for own in range(4):
        assert [entry.to for entry in entries if entry.by == f"run-{own}"] == list(range(1, MOVES + 1))
    # Each move starts where the one before it ended.
    assert all(later.before == earlier.to for earlier, later in itertools.pairwise(entries))
    assert aliases_of(tmp_path, "pets") == {"champion": entries[-1].to}


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_process_loses_no_entry(tmp_path: Path, kills: int) -> None:
    program = (
        f"import itertools, pathlib; from {__name__} import move\n"
        "for number in itertools.count(1):\n"
        f"    move(pathlib.Path({str(tmp_path)!r}), 'killed', number); print(number, flush=True)"
    )
    said = 0
    for seed in range(kills):
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        said += 1 + len(process.stdout.read().splitlines())
        process.wait()
    entries = read_log(tmp_path, "pets")
    # A process may be killed after a move and before it says so.
    assert said <= len(entries) <= said + kills
    assert all(later.before == earlier.to for earlier, later in itertools.pairwise(entries))
    assert aliases_of(tmp_path, "pets") == {"champion": entries[-1].to}
