"""Functions that never end, exhaust memory or end their process."""

import os
import signal
import time

import numpy as np
import pytest

from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

LIMITS = Limits(seconds=60, memory=2**30)


def forever() -> None:
    while True:
        time.sleep(1)


def in_native_code_forever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    forever()


def allocate(size: int) -> int:
    return int(np.ones(size, np.uint8).sum())


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail() -> None:
    raise TimeoutError("of its own")


def test_a_result_within_the_limits_is_returned() -> None:
    assert run_limited(LIMITS, allocate, 1000) == 1000


@pytest.mark.parametrize("function", [forever, in_native_code_forever])
def test_an_endless_function_is_stopped(function: object) -> None:
    with pytest.raises(LimitExceeded, match=r"does not finish within 0\.2 s"):
        run_limited(Limits(0.2, LIMITS.memory), function)  # type: ignore[arg-type]


def test_memory_beyond_the_limit_is_not_allocated() -> None:
    with pytest.raises(MemoryError):
        run_limited(LIMITS, allocate, 2 * LIMITS.memory)


def test_a_process_that_dies_is_reported() -> None:
    with pytest.raises(LimitExceeded, match="its process died"):
        run_limited(LIMITS, die)


def test_an_exception_of_the_function_is_raised_unchanged() -> None:
    with pytest.raises(TimeoutError, match="of its own"):
        run_limited(LIMITS, fail)
