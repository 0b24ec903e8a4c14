"""The lock of a retraining: it dies with its process, and keeps the requests that it turns away."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pixelmill.pipeline.run_lock import AnotherRunAtWork, RunLock, RunRequest, describe_run

HOLD = """
import sys
from pathlib import Path
from pixelmill.pipeline.run_lock import RunLock, RunRequest

with RunLock(Path(sys.argv[1]), "digits").held(RunRequest("first", "schedule")):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_run_is_turned_away_and_its_request_is_kept(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "digits")
    holder = start_holder(tmp_path)
    second = RunRequest("second", "trigger", "deployment")
    with pytest.raises(AnotherRunAtWork) as caught, lock.held(second):
        raise AssertionError
    assert (caught.value.holder.run, caught.value.holder.pid) == ("first", holder.pid)
    assert f"process {holder.pid}, run first, since " in str(caught.value)
    # Another model is not concerned.
    with RunLock(tmp_path, "pets").held(RunRequest()) as covered:
        assert covered == ()
    holder.communicate("")
    assert lock.take_requests() == (second,)
    assert lock.take_requests() == ()


def test_the_lock_dies_with_its_process_and_the_next_run_covers_the_requests(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "digits")
    holder = start_holder(tmp_path)
    with pytest.raises(AnotherRunAtWork), lock.held(RunRequest("second")):
        raise AssertionError
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock.held(RunRequest("third")) as covered:
        assert [request.run for request in covered] == ["second"]
        assert lock.read_holder().run == "third"
    assert lock.take_requests() == ()


def test_requests_that_could_not_be_met_are_for_the_next_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "digits")
    with lock.held(RunRequest("first")):
        pass
    lock.put_back((RunRequest("second"), RunRequest("third")))
    with lock.held(RunRequest("fourth")) as covered:
        assert [request.run for request in covered] == ["second", "third"]


def test_a_damaged_file_of_requests_does_not_stop_a_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "digits")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/digits.requests.json").write_text("[{]")
    with lock.held(RunRequest()) as covered:
        assert covered == ()


def test_a_holder_that_has_written_nothing_yet_is_described() -> None:
    assert describe_run(RunRequest(asked_at="", pid=0)) == "it has just started"


def ask_many(folder: Path, number: int) -> None:
    for turn in range(10):
        lock, request = RunLock(folder, "digits"), RunRequest(f"process {number}, turn {turn}")
        try:
            with lock.held(request) as covered, (folder / "log").open("a") as log:
                log.write("".join(f"{one.run}\n" for one in (RunRequest("ran"), *covered)))
        except AnotherRunAtWork:
            with (folder / "turned-away").open("a") as log:
                log.write("one\n")


def test_no_request_is_lost_or_counted_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    askers = [context.Process(target=ask_many, args=(tmp_path, number)) for number in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert [asker.exitcode for asker in askers] == [0] * 4
    left = len(RunLock(tmp_path, "digits").take_requests())
    ran = (tmp_path / "log").read_text().splitlines()
    away = (tmp_path / "turned-away").read_text().count("one") if (tmp_path / "turned-away").exists() else 0
    assert ran.count("ran") + away == 40
    assert len(ran) - ran.count("ran") + left == away
