"""Functions in separate processes, which release their memory when they are done."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from multiprocessing.connection import wait
from typing import ParamSpec, TypeVar

from pixelmill.pipeline.errors import WorkError

P = ParamSpec("P")
R = TypeVar("R")
_shared: "ContextVar[ProcessPoolExecutor | None]" = ContextVar("_shared", default=None)


def run_in_spawned_process(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module-level function in a spawned process and return its result.

    The process is spawned because one forked after importing TensorFlow hangs. It is a new one, except in
    the block of `sharing_process`.

    Raises:
        WorkError: The process died, most often because the system ran out of memory.
        Exception: Any exception of the function.
    """
    shared = _shared.get()
    try:
        with spawned_pool(1) if shared is None else nullcontext(shared) as pool:
            return pool.submit(function, *args, **kwargs).result()
    except BrokenProcessPool as error:
        raise WorkError(
            f"the process of {function.__module__}.{function.__qualname__} died",
            "a process that finishes",
            "Look for an out-of-memory kill in the system log, and provide more memory.",
        ) from error


@contextmanager
def sharing_process() -> Iterator[None]:
    """Run the functions of the block one after the other in the same process.

    TensorFlow is then imported only once, which takes seconds. What a function leaves in memory is released
    at the end of the block. A block within another one shares its process.
    """
    if _shared.get() is not None:
        yield
        return
    with spawned_pool(1) as pool:
        before = _shared.set(pool)
        try:
            yield
        finally:
            _shared.reset(before)


@contextmanager
def spawned_pool(
    workers: int, initializer: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes that end with their parent, whether it exits, crashes or is interrupted."""
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
        # Ctrl-C, or the exception that Prefect raises on SIGTERM. Only a terminal signals children as well.
        terminate_children()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def terminate_children() -> None:
    """Terminate all processes that this process has spawned."""
    for child in multiprocessing.active_children():
        child.terminate()


class _Pool(ProcessPoolExecutor):
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        # Ctrl-C while processes start would leave them half initialized, and the pool could not shut down.
        with holding_interrupts():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block; a process started in the block defers it until `start_child`."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    # The signal may be delivered to another thread, but Python always handles it in the main one.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def without_native_output(*, shown_on_failure: bool = True) -> Iterator[None]:
    """Hide what native libraries print to standard error during the block.

    Python's own messages are hidden as well, so nothing else should run in the block.

    Args:
        shown_on_failure: Whether to print it if the block raises.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            if shown_on_failure:
                notes.seek(0)
                os.write(terminal, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def start_child(initializer: Callable[..., None] | None = None, arguments: tuple[object, ...] = ()) -> None:
    """Set up a spawned process to end with its parent and on signals, then call the initializer."""
    # Ctrl-C reaches the whole process group: the parent handles it, and children simply end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Registered first, this runs last and skips the teardown of modules, which takes as long as importing
    # them while the parent needs the processors.
    atexit.register(os._exit, 0)
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
