"""Running a function whose end nobody can vouch for: in a process with a limit on its time and memory."""

import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.processes import spawned_pool

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """How long a function may take, in seconds, and how much memory its process may allocate, in bytes."""

    seconds: float
    memory: int


class LimitExceeded(WorkError):
    """The function did not return within its limits; `received` says which of them."""


def run_limited(limits: Limits, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module's function in a spawned process of its own and return what it returns.

    Memory is limited by `RLIMIT_DATA`, so that a request beyond it fails in that process. Libraries answer
    a failed request by an exception of their own, which is raised here, or by ending the process.

    Raises:
        LimitExceeded: The function took too long, or its process ended by itself.
        Exception: Whatever the function raised.
    """
    gigabytes = f"{limits.memory / 2**30:.1f} GiB"
    with spawned_pool(1, _limit_memory, (limits.memory,)) as pool:
        # Started first: the clock is the function's own, however slowly a process starts here.
        worker = pool.submit(os.getpid).result()
        future = pool.submit(function, *args, **kwargs)
        try:
            return future.result(limits.seconds)
        except TimeoutError as error:
            if future.done():
                raise  # The function's own.
            # It may be in a library's loop, where it hears no gentler signal.
            os.kill(worker, signal.SIGKILL)
            raise LimitExceeded(
                f"it does not end within {limits.seconds:g} s",
                "an end",
                "Allow it more time, or take it for broken.",
            ) from error
        except BrokenProcessPool as error:
            raise LimitExceeded(
                f"its process ended by itself, with {gigabytes} of memory allowed",
                "it to return",
                "Take it for broken, or for too large to be run here.",
            ) from error


def _limit_memory(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
