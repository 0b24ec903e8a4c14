"""One retraining of a model at a time: a lock that dies with its process, and the requests turned away.

The lock is a file of the store's local work folder, held with `flock`. It keeps the runs of one machine
apart. Those of several machines that share a remote store can be at work together; their versions and
promotions do not conflict. A request that finds the lock taken is kept in a small file, and the run at work,
or the next one, takes it over.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from pixelmill.pipeline.artifacts import now, read_json, remove_file, write_json
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.storage import change_file

LOCKS_FOLDER = "locks"


@dataclass(frozen=True)
class RunRequest:
    """Who asks for a retraining, and why.

    Attributes:
        run: The identifier of the flow run that asks; empty if there is none.
        reason: Why, in words: `schedule`, `command`, or the event that triggered it.
        deployment: The deployment to start again once the lock is free; empty if the request needs no run of
            its own, because the next one covers it.
        asked_at: When, in UTC and ISO 8601.
        pid: The process that asks.
    """

    run: str = ""
    reason: str = "command"
    deployment: str = ""
    asked_at: str = field(default_factory=now)
    pid: int = field(default_factory=os.getpid)


class AnotherRunAtWork(PixelmillError):
    """Another run of the same model holds the lock; the request is kept."""

    def __init__(self, name: str, holder: RunRequest) -> None:
        super().__init__(
            f"another run of {name} is at work: {describe_run(holder)}",
            "one run of a model at a time",
            "Nothing was started. The request is kept for that run and the next one.",
        )
        self.name = name
        self.holder = holder


@dataclass(frozen=True)
class Skipped:
    """A retraining that did not start, because another run of the same model is at work."""

    name: str
    holder: RunRequest


_REQUESTS = TypeAdapter(tuple[RunRequest, ...])
_REQUEST = TypeAdapter(RunRequest)


@dataclass(frozen=True)
class RunLock:
    """The lock of one model in the work folder of a store.

    Attributes:
        work: The local work folder, see `pixelmill.pipeline.storage.workspace`.
        name: The name of the model.
    """

    work: Path
    name: str

    @property
    def _folder(self) -> Path:
        return self.work / LOCKS_FOLDER

    @property
    def _holder(self) -> Path:
        return self._folder / f"{self.name}.json"

    @property
    def _requests(self) -> Path:
        return self._folder / f"{self.name}.requests.json"

    @contextmanager
    def held(self, request: RunRequest) -> Iterator[tuple[RunRequest, ...]]:
        """Hold the lock during the block; yields the requests of earlier runs, which this one covers.

        Requests that come during the block stay in their file, see `take_requests`.

        Raises:
            AnotherRunAtWork: Another process holds it. The request was added to the file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{self.name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            self._add(request)
            try:
                # The other run may have ended, and taken its requests over, before this one was in the file.
                lock.acquire()
            except Timeout:
                raise AnotherRunAtWork(self.name, self.read_holder()) from None
        try:
            write_json(self._holder, vars(request))
            yield tuple(one for one in self.take_requests() if one != request)
        finally:
            remove_file(self._holder)
            lock.release()

    def take_requests(self) -> tuple[RunRequest, ...]:
        """Remove the requests that were turned away from their file, and return them, the oldest first.

        To be called after the block of `held`: whoever is turned away later finds the lock free.
        """
        taken: tuple[RunRequest, ...] = ()

        def empty(content: bytes | None) -> bytes | None:
            nonlocal taken
            taken = _parse(content)
            return b"[]" if taken else None

        if self._requests.is_file():
            change_file(self._requests, empty)
        return taken

    def put_back(self, requests: tuple[RunRequest, ...]) -> None:
        """Return requests that could not be met to the file, for the next run."""
        for request in requests:
            self._add(request)

    def read_holder(self) -> RunRequest:
        """Who holds the lock; without any facts if they are not written yet."""
        try:
            return _REQUEST.validate_python(read_json(self._holder))
        except (OSError, ValidationError, PixelmillError):
            return RunRequest(asked_at="", pid=0)

    def _add(self, request: RunRequest) -> None:
        def append(content: bytes | None) -> bytes:
            return _dump((*_parse(content), request))

        change_file(self._requests, append)


def describe_run(holder: RunRequest) -> str:
    """A run that is at work, in a few words: `process 4711, run 0a1b, since 2026-11-28T02:00:03+00:00`."""
    facts: Mapping[str, object] = {
        "process": holder.pid or "",
        "run": holder.run,
        "since": holder.asked_at,
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value) or "it has just started"


def _parse(content: bytes | None) -> tuple[RunRequest, ...]:
    try:
        return _REQUESTS.validate_json(content or b"[]")
    except ValidationError:
        return ()  # Not ours any more: losing a request costs one run, refusing would cost every run.


def _dump(requests: tuple[RunRequest, ...]) -> bytes:
    return json.dumps([vars(request) for request in requests]).encode()
