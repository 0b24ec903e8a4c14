"""What a worker process does: read, hash, decode, infer, and write one shard's part of the table."""

import errno
import hashlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.config import ImageSpec
from pipeline.errors import PixelmillError
from pipeline.export import ModelBundle
from pipeline.images import DecodedImage, FailureCode, ImageFailure, decode
from pipeline.inference import InferenceSession, Provider, load_session
from pipeline.predictions import Prediction, Row, RunFacts, read_rows, table_row, write_part
from pipeline.scoring.listing import ListedImage, unescape
from pipeline.scoring.planning import read_shard

_BATCH = 64
_MOST_BYTES = 1 << 30
_KILLER = "kills its worker"


@dataclass(frozen=True)
class ShardTask:
    """One shard's work, told in paths.

    `earlier` is a part of this run whose failed rows alone are to be tried again, or None. `killers` are
    the places in the shard of images that are known to kill a worker, and are not touched again.
    """

    shard: Path
    part: Path
    answer_key: str
    earlier: Path | None
    killers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ShardResult:
    """What one shard took: its rows, those computed now, how many of these failed, seconds by stage."""

    rows: int
    computed: int
    failed: int
    seconds: dict[str, float]


@dataclass
class Worker:
    """What a worker process keeps from shard to shard."""

    session: InferenceSession
    spec: ImageSpec
    labels: tuple[str, ...]
    images: Path
    facts: RunFacts
    top_k: int
    max_pixels: int
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def score(self, task: ShardTask) -> ShardResult:
        """Write a shard's part."""
        self.seconds.clear()
        listed = [
            replace(image, problem=_KILLER) if place in task.killers else image
            for place, image in enumerate(read_shard(task.shard))
        ]
        rows: dict[str, Row] = {}
        if task.earlier is not None:
            with self._timed("read"):
                kept = [row for row in read_rows(task.earlier) if row["status"] == "scored"]
            rows = {row["image_path"]: row for row in kept}
        due = [image for image in listed if image.path not in rows]
        predictions = self.answer(due)
        for prediction in predictions:
            rows[prediction.image_path] = table_row(prediction, self.labels, self.facts, self.top_k)
        failed = sum(prediction.error is not None for prediction in predictions)
        with self._timed("write"):
            in_order = [rows[image.path] for image in listed]
            write_part(task.part, in_order, self.top_k, task.answer_key)
        return ShardResult(len(listed), len(due), failed, dict(self.seconds))

    def answer(self, images: list[ListedImage]) -> list[Prediction]:
        """A prediction for every image, in their order."""
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        return [prediction for batch in batches for prediction in self._answer(batch)]

    def _answer(self, batch: list[ListedImage]) -> list[Prediction]:
        """A row for every image, in their order; the network sees those that could be decoded."""
        answers: list[Prediction | None] = []
        decoded: list[tuple[int, str, DecodedImage]] = []
        for image in batch:
            sha256 = None
            try:
                with self._timed("read"):
                    data = _read(self.images / unescape(image.path), image.problem)
                    sha256 = hashlib.sha256(data).hexdigest()
                with self._timed("decode"):
                    decoded.append((len(answers), sha256, decode(data, self.spec, self.max_pixels)))
                answers.append(None)
            except ImageFailure as failure:
                answers.append(Prediction(image.path, sha256, str(failure)))
        if decoded:
            with self._timed("infer"):
                tensor = np.stack([item.pixels for _, _, item in decoded])
                probabilities = self.session.probabilities(tensor)
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
            for row, (at, sha256, item) in enumerate(decoded):
                choices = tuple((int(i), float(probabilities[row, i])) for i in order[row])
                answers[at] = Prediction(batch[at].path, sha256, None, choices, item.width, item.height)
        return [answer for answer in answers if answer is not None]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


_worker: Worker | PixelmillError | None = None


def start_worker(
    bundle: ModelBundle,
    provider: Provider,
    images: Path,
    facts: RunFacts,
    top_k: int,
    max_pixels: int,
) -> None:
    """Load the model once for all the shards of this process."""
    global _worker  # noqa: PLW0603  # A pool's initializer can hand its work on no other way.
    try:
        _worker = Worker(
            session=load_session(bundle.onnx_path, provider),
            spec=bundle.image_spec(),
            labels=bundle.labels(),
            images=images,
            facts=facts,
            top_k=top_k,
            max_pixels=max_pixels,
        )
    except PixelmillError as error:
        # An initializer's error is lost on its way to the parent; a task's is not.
        _worker = error


def score_shard(task: ShardTask) -> ShardResult:
    """Score one shard in a process that `start_worker` has set up."""
    mark = begun_mark(task)
    mark.touch()
    result = _this_worker().score(task)
    mark.unlink()
    return result


def try_images(task: ShardTask, start: int, stop: int) -> None:
    """Answer some images of a shard, by their places in it, and write nothing."""
    _this_worker().answer(read_shard(task.shard)[start:stop])


def begun_mark(task: ShardTask) -> Path:
    """A file that is there while a worker is at a shard, and stays if that worker dies."""
    return task.part.with_suffix(".begun")


def _this_worker() -> Worker:
    if isinstance(_worker, PixelmillError):
        raise _worker
    if _worker is None:
        raise RuntimeError("start_worker comes first")
    return _worker


def _read(path: Path, problem: str | None) -> bytes:
    """A regular file's bytes; never waits for a pipe that took the file's place."""
    if problem == _KILLER:
        raise ImageFailure(FailureCode.WORKER_DIED, "every process that takes it up dies")
    if problem is not None:
        raise ImageFailure(FailureCode.NOT_A_FILE, problem)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ImageFailure(FailureCode.NOT_A_FILE, "no regular file any more")
            if facts.st_size > _MOST_BYTES:
                raise ImageFailure(FailureCode.TOO_LARGE, f"{facts.st_size} bytes, over {_MOST_BYTES}")
            return file.read()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # The machine's trouble, not the file's.
        raise ImageFailure(FailureCode.UNREADABLE, error.strerror or "cannot be read") from error
