"""Functions in spawned processes: each in a new one, or several in the same."""

import os

import pytest

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.processes import run_in_spawned_process, sharing_process


def test_each_function_has_a_process_of_its_own() -> None:
    first, second = (run_in_spawned_process(os.getpid) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3


def test_the_functions_of_a_block_share_a_process() -> None:
    with sharing_process():
        first = run_in_spawned_process(os.getpid)
        with pytest.raises(ValueError, match="invalid literal"):
            run_in_spawned_process(int, "no number")
        with sharing_process():
            inner = run_in_spawned_process(os.getpid)
        assert {inner, run_in_spawned_process(os.getpid)} == {first}
        assert first != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert run_in_spawned_process(os.getpid) != first


def test_a_shared_process_that_dies_is_an_error() -> None:
    with sharing_process(), pytest.raises(WorkError, match=r"the process of posix\._exit died"):
        run_in_spawned_process(os._exit, 3)
    assert run_in_spawned_process(abs, -1) == 1
