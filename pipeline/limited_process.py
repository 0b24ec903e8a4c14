"""Functions that may hang or crash, in a process with limits on time and memory."""

import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from humanize import naturalsize

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.processes import spawned_pool

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """Limits on the time of a function in seconds, and on the memory of its process in bytes."""

    seconds: float
    memory: int


class LimitExceeded(WorkError):
    """The function exceeded a limit; `received` says which one."""


def run_limited(limits: Limits, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module-level function in a spawned process and return its result.

    Memory is limited by `RLIMIT_DATA`, so that allocations beyond it fail. Libraries react to that with an
    exception, which is raised here, or by exiting.

    Raises:
        LimitExceeded: The function took too long, or its process died.
        Exception: Any exception of the function.
    """
    with spawned_pool(1, _limit_memory, (limits.memory,)) as pool:
        # Neither the start of the process nor importing the function counts against the time limit.
        worker = pool.submit(_ready, function).result()
        future = pool.submit(function, *args, **kwargs)
        try:
            return future.result(limits.seconds)
        except TimeoutError as error:
            if future.done():
                raise  # The function itself raised it.
            # Code in a library may not react to a weaker signal.
            os.kill(worker, signal.SIGKILL)
            raise LimitExceeded(
                f"it does not finish within {limits.seconds:g} s",
                "a result within the time limit",
                "Allow more time. If that does not help, it is broken.",
            ) from error
        except BrokenProcessPool as error:
            raise LimitExceeded(
                f"its process died with a memory limit of {naturalsize(limits.memory, binary=True)}",
                "a process that finishes",
                "It is broken, or too large to run here.",
            ) from error


def _ready(function: Callable[..., object]) -> int:
    """The id of this process, which has imported the function's module in order to receive it."""
    return os.getpid()


def _limit_memory(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
