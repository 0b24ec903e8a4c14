"""Running a function in a fresh process of its own, so that its memory comes back when it is done."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import ParamSpec, TypeVar

from pixelmill.pipeline.errors import WorkError

P = ParamSpec("P")
R = TypeVar("R")


def run_in_spawned_process(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module's function in a spawned process and return what it returns.

    Spawned, because a process forked after TensorFlow was imported hangs.

    Raises:
        WorkError: The process died, most often because the system ran out of memory.
        Exception: Whatever the function raised.
    """
    try:
        with spawned_pool(1) as pool:
            return pool.submit(function, *args, **kwargs).result()
    except BrokenProcessPool as error:
        raise WorkError(
            f"the process of {function.__module__}.{function.__qualname__} died",
            "it to return",
            "Look for an out-of-memory kill in the system's log, and give it more memory.",
        ) from error


@contextmanager
def spawned_pool(
    workers: int, initializer: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes that end with their parent, however it ends, and when it is told to."""
    pool = _Pool(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_child,
        initargs=(initializer, arguments),
    )
    try:
        yield pool
    except Exception:
        raise
    except BaseException:
        # Ctrl-C, or what Prefect makes of SIGTERM. Only a terminal tells the children, too.
        terminate_children()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def terminate_children() -> None:
    """Tell all that this process has spawned to end."""
    for child in multiprocessing.active_children():
        child.terminate()


class _Pool(ProcessPoolExecutor):
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        # Where it starts processes, Ctrl-C would leave halves of them, and the pool could not end.
        with holding_interrupts():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Have Ctrl-C wait for the end of a block, and in a process started there until it can end quietly."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    # Another thread may be given the signal, which Python then answers in the main one.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if held:
            signal.raise_signal(signal.SIGINT)


def start_child(initializer: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()) -> None:
    """What a spawned process does first, so that it ends with its parent and when it is told to."""
    # Ctrl-C reaches the whole process group: the parent answers it, a child just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Registered first, it is called last, when all else is tidied up: to take every module apart would
    # take as long as to load them, while the parent has work for the processors.
    atexit.register(os._exit, 0)
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
