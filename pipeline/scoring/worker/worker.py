"""The worker process: prepares images, runs the model and writes the part of one shard."""

import io
import os
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelmill.pipeline.drift.sample import ImageSample
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.predictions.arrays import number_array
from pixelmill.pipeline.predictions.columns import TRUE_LABEL, Predictions
from pixelmill.pipeline.predictions.parts import (
    file_facts,
    is_intact,
    part_name,
    read_image_sample,
    read_row_groups,
    writing_part,
)
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.plan import read_plan
from pixelmill.pipeline.scoring.shards import find_part, read_columns, read_shard, shard_images, shard_key
from pixelmill.pipeline.scoring.thumbnails import Uncertain, least_confident, merge_uncertain
from pixelmill.pipeline.scoring.training_images import TrainingImages
from pixelmill.pipeline.scoring.true_labels import FolderLabels
from pixelmill.pipeline.scoring.worker.decoder_pool import DecoderPool
from pixelmill.pipeline.scoring.worker.file_reader import CRASHES_WORKER
from pixelmill.pipeline.scoring.worker.image_sample import ShardSample
from pixelmill.pipeline.scoring.worker.model import RunModel
from pixelmill.pipeline.scoring.worker.preparation import Preparation, Prepared, batches
from pixelmill.pipeline.storage import parse_location

if TYPE_CHECKING:
    import pyarrow as pa

_GROUPS_AHEAD = 1
_NONE_CRASHING: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ShardResult:
    """The result of scoring one shard.

    Attributes:
        number: The number of the shard.
        rows: All rows of the shard.
        computed: Rows read and predicted now.
        failed: Rows that failed now.
        reused: Rows taken from an earlier table.
        copied: Rows with the bytes of another image of the run.
        uncertain: The least confident rows.
        seconds: Time by stage.
        ready_at: When the worker had loaded the model, by `time.time`.
        provider: The execution provider that onnxruntime uses.
        worker: A name for the process.
    """

    number: int
    rows: int
    computed: int
    failed: int
    reused: int
    copied: int
    uncertain: tuple[Uncertain, ...]
    seconds: dict[str, float]
    ready_at: float
    provider: str
    worker: str


class Worker:
    """The state that a worker keeps between shards.

    On the CPU, it alternates between decoding and inference, as there is one worker per processor. A GPU is
    owned by a single worker with `decoders` processes that decode ahead of it.
    """

    def __init__(self, plan: ScoringPlan, decoders: int = 0) -> None:
        self._plan = plan
        self._model = RunModel(plan)
        self._true_labels = FolderLabels(plan.labels)
        self._preparation = Preparation(plan)
        self._trained_on = TrainingImages(plan.request.bundle) if plan.layout.seen else None
        self._decoders = DecoderPool(plan, decoders) if decoders else None
        self._empty = partial(
            Predictions, kept=plan.request.kept, embedding_size=plan.request.bundle.embedding_size
        )
        self._warm_up()
        self._seconds: dict[str, float] = defaultdict(float)
        self._name = f"{socket.gethostname()}, process {os.getpid()}, thread {threading.get_ident()}"
        self._ready_at = time.time()

    def _warm_up(self) -> None:
        """Build and write an empty table, so that the first shard does not pay for the slow first call."""
        import pyarrow.parquet as pq

        predictions = self._empty([""])
        pq.write_table(self._join([], None, [], predictions), io.BytesIO(), compression="zstd")

    def score(self, number: int, crashing: frozenset[int] = _NONE_CRASHING) -> ShardResult:
        """Score a shard and write its part; of a part from an interrupted run, only failed rows are retried.

        Args:
            number: The number of the shard.
            crashing: The indices of images that crash a worker and must not be decoded.
        """
        self._seconds.clear()
        self._preparation.reload_timeouts()
        request = self._plan.request
        key = shard_key(self._plan, number)
        found = find_part(self._plan, number, key)
        intact = found if found and is_intact(found) else None
        earlier = read_row_groups(intact) if intact else None
        sample: ShardSample | None = None
        rows, counts = 0, Counter[str]()
        uncertain: tuple[Uncertain, ...] = ()
        run_id = self._plan.facts.run_id
        with writing_part(request.parts / part_name(number), self._plan.layout, key, run_id) as part:
            columns = read_columns(self._plan, number)
            for images in read_shard(self._plan, number):
                kept = next(earlier, None) if earlier else None
                sample = sample or ShardSample(number, len(images), self._preparation.previous_sample)
                due = _places_due(images, kept)
                predictions, reused, copied = self.predict(
                    [
                        images[place]._replace(problem=CRASHES_WORKER)
                        if rows + place in crashing
                        else images[place]
                        for place in due
                    ],
                    sample,
                )
                start = time.perf_counter()
                table = self._join(images, kept, due, predictions, next(columns, None))
                part.write(table, file_facts([image[1:4] for image in images]))
                uncertain = merge_uncertain(uncertain, least_confident(table))
                self._seconds["write"] += time.perf_counter() - start
                rows += len(images)
                failed = sum(error is not None for error in predictions.errors)
                counts.update(
                    computed=len(due) - reused - copied, failed=failed, reused=reused, copied=copied
                )
            if sample:
                before = ImageSample.from_text(read_image_sample(intact)) if intact else None
                part.image_sample = sample.finish(before).to_text()
        return ShardResult(
            number=number,
            rows=rows,
            computed=counts["computed"],
            failed=counts["failed"],
            reused=counts["reused"],
            copied=counts["copied"],
            uncertain=uncertain,
            seconds=dict(self._seconds),
            ready_at=self._ready_at,
            provider=self._model.provider,
            worker=self._name,
        )

    def predict(
        self, images: Sequence[ListedImage], sample: ShardSample | None = None
    ) -> tuple[Predictions, int, int]:
        """Predict images, and measure those of the sample.

        Returns:
            A row for each image, in order; the number of rows from an earlier table; and the number of rows
            copied from another image of this run with the same bytes.
        """
        predictions = self._empty([image.path for image in images])
        reused, computed = 0, set[int]()
        duplicates: list[tuple[int, int]] = []
        waiting: list[tuple[int, Pixels]] = []
        for prepared in self._prepare_all(images):
            predictions.paste(prepared.start, prepared.predictions)
            for stage, seconds in prepared.seconds.items():
                self._seconds[stage] += seconds
            reused += prepared.taken
            duplicates += prepared.duplicates
            waiting += prepared.pixels
            if sample and prepared.pixels:
                sample.measure(prepared.pixels, predictions)
                computed.update(place for place, _ in prepared.pixels)
            while len(waiting) >= self._model.batch_images:
                self._seconds["infer"] += self._model.infer(waiting[: self._model.batch_images], predictions)
                del waiting[: self._model.batch_images]
        if waiting:
            self._seconds["infer"] += self._model.infer(waiting, predictions)
        for place, first in duplicates:
            predictions.copy_row(first, place)
        if sample:
            copies = [place for place, _ in duplicates]
            sample.copy(copies, predictions)
            if reused:
                scored = {at for at, error in enumerate(predictions.errors) if not error}
                sample.reuse(sorted(scored - computed.union(copies)), predictions)
        return predictions, reused, len(duplicates)

    def close(self) -> None:
        """Stop the processes and timers of the worker."""
        self._preparation.close()
        if self._decoders:
            self._decoders.close()

    def _prepare_all(self, images: Sequence[ListedImage]) -> Iterator[Prepared]:
        if self._decoders:
            yield from self._decoders.prepare_all(images)
            return
        seen: dict[str, int] = {}
        groups = batches(images)
        if not self._plan.source.has_latency:
            # Cached files are read without waiting, and another thread would only compete for the processors.
            for start, group in groups:
                prepared = self._preparation.prepare(group, start, seen)
                yield prepared
                if prepared.waits > len(group) / 2:
                    break
        # With slow storage, read ahead while earlier images are decoded and predicted.
        with ThreadPoolExecutor(1) as ahead:
            coming: deque[Future[Prepared]] = deque()
            for start, group in groups:
                coming.append(ahead.submit(self._preparation.read, group, start, seen))
                if len(coming) > _GROUPS_AHEAD:
                    yield self._decoded(coming.popleft())
            while coming:
                yield self._decoded(coming.popleft())

    def _decoded(self, coming: Future[Prepared]) -> Prepared:
        prepared = coming.result()
        self._preparation.decode(prepared)
        return prepared

    def _join(
        self,
        images: Sequence[ListedImage],
        kept: "pa.Table | None",
        due: Sequence[int],
        predictions: Predictions,
        others: "pa.Table | None" = None,
    ) -> "pa.Table":
        import pyarrow as pa

        layout = self._plan.layout
        if others is not None and len(due) < len(others):
            others = others.take(number_array(np.array(due, np.int64)))
        true_labels = self._true_labels_of(predictions.paths, others) if layout.true_labels else None
        new = predictions.to_table(
            self._plan.labels,
            self._plan.facts,
            layout,
            true_labels,
            self._plan.thresholds,
            others,
            self._trained_on.seen(predictions.sha256) if self._trained_on else None,
        )
        if kept is None:
            return new
        order = np.arange(len(images))
        order[list(due)] = len(images) + np.arange(len(due))
        return pa.concat_tables([kept.replace_schema_metadata(None), new]).take(number_array(order))

    def _true_labels_of(self, paths: Sequence[str], others: "pa.Table | None") -> list[str | None]:
        if others is None or TRUE_LABEL not in others.column_names:
            return [*map(self._true_labels.of_path, paths)]
        return [*map(self._true_labels.of_text, others[TRUE_LABEL].to_pylist())]


# One per thread: a Dask worker may run several threads, each with its own session.
_workers = threading.local()
_marks: Path | None = None


def start_worker(work: str, marks: Path) -> None:
    """Load the model once for all shards of this process; if that fails, the first shard reports the error.

    Args:
        work: The work folder of the run, local or remote.
        marks: A local folder for the marker files of shards in progress.
    """
    global _marks  # noqa: PLW0603  # A pool's initializer has no other way to pass on its result.
    _marks = marks
    # The parent does not see an initializer's error, but it does see a task's.
    with suppress(PixelmillError):
        _worker_of(work)


def score_shard(work: str, number: int, crashing: frozenset[int] = _NONE_CRASHING) -> ShardResult:
    """Score one shard of the run with the given work folder."""
    worker = _worker_of(work)
    mark = None if _marks is None else marker_file(_marks, number)
    if mark:
        mark.touch()
    try:
        result = worker.score(number, crashing)
    except BrokenProcessPool:
        _discard_worker()  # One of its decoder processes died, which stops the whole pool.
        raise
    if mark:
        mark.unlink()
    return result


def try_images(work: str, number: int, start: int, stop: int) -> None:
    """Predict the images of a shard from index `start` up to, not including, `stop`, and write nothing."""
    plan = read_plan(parse_location(work))
    _worker_of(work).predict(shard_images(plan, number)[start:stop])


def marker_file(marks: Path, number: int) -> Path:
    """The marker file that exists while a worker scores a shard, and stays if that worker dies."""
    return marks / str(number)


def _worker_of(work: str) -> Worker:
    # Read each time, because a cluster's process may serve another run in the same folder.
    plan = read_plan(parse_location(work))
    if getattr(_workers, "plan", None) != plan:
        _discard_worker()
        on_gpu = plan.request.provider == "cuda"
        decoders = plan.request.workers or processor_limit().count
        _workers.worker = Worker(plan, decoders if on_gpu else 0)
        _workers.plan = plan
    worker: Worker = _workers.worker
    return worker


def _discard_worker() -> None:
    if hasattr(_workers, "worker"):
        _workers.worker.close()
        del _workers.worker, _workers.plan


def _places_due(images: Sequence[ListedImage], kept: "pa.Table | None") -> Sequence[int]:
    if kept is None:
        return range(len(images))
    return [place for place, status in enumerate(kept["status"].to_pylist()) if status == "failed"]
