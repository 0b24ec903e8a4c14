"""A process pool for work on images, any of which may crash its process.

It is used outside of scoring: to prepare datasets, to verify exports, for thumbnails, and to explain an
image. An image that exceeds the limit on memory or time, or crashes its process, yields a failure. The
process is replaced, and all other images yield their results.
"""

import itertools
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.guard import guard
from pixelmill.pipeline.decoding.memory import MEMORY_LIMIT
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.processes import holding_interrupts, start_child

T = TypeVar("T")
R = TypeVar("R")
_ITEMS_AT_ONCE = 16
_SECONDS_TO_START = 120.0
_READY = "ready"


def map_guarded(
    function: Callable[[T], R],
    items: Iterable[T],
    processes: int,
    limits: DecodingLimits | None = None,
    at_once: int = _ITEMS_AT_ONCE,
) -> Iterator[R | ImageFailure]:
    """Map a function over items in separate processes, yielding results in order.

    Args:
        function: A module-level function, or a `partial` of one. Its exceptions become failures of the item.
        items: Consumed lazily; each represents one image, for example by its path.
        processes: The number of processes, which start with the first item.
        limits: Limits on each image.
        at_once: Number of items sent to a process at a time.

    Yields:
        For each item, the result of the function or an `ImageFailure`: `too_costly` over the limits,
        `worker_died` if its process crashed, or the exception of the function.

    Raises:
        WorkError: A process died before it was ready.
    """
    pool = _GuardedPool(function, iter(items), processes, limits or DecodingLimits(), at_once)
    try:
        yield from pool.results()
    finally:
        pool.close()


@dataclass
class _Worker(Generic[T]):
    """A process, the items it was given, and when it started on the first of them."""

    process: BaseProcess
    connection: "Connection[Any, Any]"
    due: deque[tuple[int, T]] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)
    is_ready: bool = False


class _GuardedPool(Generic[T, R]):
    def __init__(
        self,
        function: Callable[[T], R],
        items: Iterator[T],
        processes: int,
        limits: DecodingLimits,
        at_once: int,
    ) -> None:
        self._function = function
        self._items = enumerate(items)
        self._processes = processes
        self._limits = limits
        self._at_once = at_once
        self._again: deque[tuple[int, T]] = deque()
        self._workers: list[_Worker[T]] = []
        self._found: dict[int, R | ImageFailure] = {}
        self._taken = self._next = 0

    def results(self) -> Iterator[R | ImageFailure]:
        while True:
            self._give_work()
            if self._next in self._found:
                yield self._found.pop(self._next)
                self._next += 1
            elif any(worker.due for worker in self._workers):
                self._wait()
            else:
                return

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def _give_work(self) -> None:
        idle = [worker for worker in self._workers if not worker.due]
        while (idle or len(self._workers) < self._processes) and (chunk := self._take_items()):
            worker = idle.pop() if idle else self._start()
            self._send(worker, chunk)

    def _take_items(self) -> list[tuple[int, T]]:
        """The next items; none while too many results wait for an earlier one."""
        if self._again:
            again, self._again = self._again, deque()
            return list(again)
        if self._taken - self._next > 2 * self._at_once * self._processes:
            return []
        chunk = list(itertools.islice(self._items, self._at_once))
        self._taken += len(chunk)
        return chunk

    def _start(self) -> _Worker[T]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._function, self._limits), name="decoder", daemon=True
        )
        with holding_interrupts():
            process.start()
        theirs.close()
        worker: _Worker[T] = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _send(self, worker: _Worker[T], chunk: list[tuple[int, T]]) -> None:
        worker.due.extend(chunk)
        worker.since = time.monotonic()
        with suppress(OSError):  # A dead process is detected when waiting for its results.
            worker.connection.send([item for _, item in chunk])

    def _wait(self) -> None:
        """Collect the results that have arrived, and replace processes over the time limit."""
        busy = {worker.connection: worker for worker in self._workers if worker.due}
        ends = [worker.since + self._allowed(worker) for worker in busy.values()]
        ready = wait(list(busy), max(min(ends) - time.monotonic(), 0.0))
        for connection in ready:
            worker = busy[connection]  # type: ignore[index]
            try:
                self._take(worker, worker.connection.recv())
            except (EOFError, OSError):
                self._replace(worker, ImageFailure(FailureCode.WORKER_DIED, "decoding crashed the process"))
        now = time.monotonic()
        for worker in busy.values():
            if worker.connection not in ready and now > worker.since + self._allowed(worker):
                words = f"decoding exceeds the limit of {self._limits.max_seconds:g} s"
                self._replace(worker, ImageFailure(FailureCode.TOO_COSTLY, words))

    def _allowed(self, worker: _Worker[T]) -> float:
        return self._limits.max_seconds if worker.is_ready else _SECONDS_TO_START

    def _take(self, worker: _Worker[T], result: Any) -> None:
        worker.since = time.monotonic()
        if worker.is_ready:
            index, _ = worker.due.popleft()
            self._found[index] = result
        worker.is_ready = True

    def _replace(self, worker: _Worker[T], failure: ImageFailure) -> None:
        """Kill a process. Its current item fails, and the remaining ones go to another process."""
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        if not worker.is_ready:
            raise WorkError(
                "a decoder process died before it was ready",
                "a process that starts",
                "Look for an out-of-memory kill in the system log, and run the same command again.",
            )
        index, _ = worker.due.popleft()
        self._found[index] = failure
        self._again.extendleft(reversed(worker.due))


def _serve(connection: "Connection[Any, Any]", function: Callable[[T], R], limits: DecodingLimits) -> None:
    """Receive lists of items and send one result for each, until the connection closes."""
    start_child()
    connection.send(_READY)
    while True:
        try:
            items = connection.recv()
        except EOFError:
            return
        for item in items:
            with MEMORY_LIMIT.allowing(limits.max_memory):
                result = _call(function, item, limits)
            connection.send(result)


def _call(function: Callable[[T], R], item: T, limits: DecodingLimits) -> R | ImageFailure:
    try:
        return guard(function, limits, item)
    except ImageFailure as failure:
        # Without its cause, which may not be picklable.
        return ImageFailure(failure.code, failure.reason)
