"""Scoring on an existing Dask cluster. A task is the address of a work folder and the number of a shard.

The image folder, the output folder and the bundle must be reachable under the same name on every machine: on
a shared file system or by address. When a worker dies, Dask reruns its shard on another worker. A shard that
crashes its workers repeatedly is bisected to find the images responsible.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from logging import getLogger
from typing import Any

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.extras import install_command
from pixelmill.pipeline.predictions.parts import part_name, read_row_groups
from pixelmill.pipeline.progress import Meter
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.local_engine import find_crashing_images
from pixelmill.pipeline.scoring.shards import FIRST_LIMIT, ShardLimit, shard_images, write_shards
from pixelmill.pipeline.scoring.tally import Tally
from pixelmill.pipeline.scoring.worker.timeouts import read_timeouts
from pixelmill.pipeline.scoring.worker.worker import ShardResult, score_shard, try_images
from pixelmill.pipeline.storage import absolute

_log = getLogger(__name__)
SECONDS_A_SHARD = 90.0
_SIZE_FILE = "shard_size.json"
_SIZE_UNMEASURED = 16_384
_SECONDS_TO_CONNECT = 30
# Besides the death of the worker itself, that of a process that decodes for a GPU worker.
_DEATHS = (BrokenProcessPool, MemoryError)
Submit = Callable[[str, int], "Future[ShardResult]"]
"""Starts a shard's task, given the address of the work folder and the shard's number."""


def score_on_cluster(plan: ScoringPlan, tally: Tally, meter: Meter) -> tuple[int, str]:
    """Score all shards on the cluster of the scheduler that the request names.

    Raises:
        RequestError: No scheduler is reachable at the address, or it has no workers.
        WorkError: A shard crashes its workers, but none of its images does so on its own.
    """
    address = plan.request.dask_address
    with _connected(address) as client:

        def submit(work: str, number: int) -> Any:
            return client.submit(score_shard, work, number, key=f"{plan.facts.run_id}-{number}", pure=False)

        run_shards(plan, tally, meter, submit)
    return len(tally.workers), f"the Dask cluster at {address}"


def run_shards(
    plan: ScoringPlan,
    tally: Tally,
    meter: Meter,
    submit: Submit,
) -> None:
    """List the images and score them in shards of about 90 seconds of work.

    The first shard is small; the time it takes determines the size of the others. The size is saved, so that
    a resumed run cuts the same shards.
    """
    size = _Size(plan)
    running: dict[int, Future[ShardResult]] = {}
    for shard in write_shards(plan, size.limits(), skipped=tally.skipped):
        if not tally.list_shard(plan, shard):
            meter(shard.images, tally.note)
            continue
        running[shard.number] = submit(absolute(plan.request.work), shard.number)
        if not size.is_known:
            result = _result(running.pop(shard.number), plan, shard.number)
            size.learn(result)
            _count(result, tally, meter)
    meter.expect(tally.listed)
    for number, future in running.items():
        _count(_result(future, plan, number), tally, meter)


class _Size:
    """The number of images in a shard."""

    def __init__(self, plan: ScoringPlan) -> None:
        self._path = plan.request.work / _SIZE_FILE
        self._images: int | None = None
        second = plan.request.parts / part_name(1)
        if self._path.is_file():
            self._images = read_json(self._path)["images"]
        elif second.is_file():  # A finished table is scored again with shards of the same size.
            self._images = sum(len(rows) for rows in read_row_groups(second))

    @property
    def is_known(self) -> bool:
        return self._images is not None

    def limits(self) -> Iterator[ShardLimit]:
        yield FIRST_LIMIT
        while True:
            yield self._images or _SIZE_UNMEASURED, float("inf")

    def learn(self, result: ShardResult) -> None:
        seconds = sum(result.seconds.values()) / max(result.rows, 1)
        self._images = max(round(SECONDS_A_SHARD / seconds), 1) if seconds else _SIZE_UNMEASURED
        write_json(self._path, {"images": self._images, "seconds_an_image": seconds})


def _count(result: ShardResult, tally: Tally, meter: Meter) -> None:
    tally.add(result)
    meter(result.rows, tally.note)


def _result(future: "Future[ShardResult]", plan: ScoringPlan, number: int) -> ShardResult:
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except (KilledWorker, *_DEATHS):
        _log.warning("shard %d crashes its workers; searching for the image responsible", number)
        return _score_without_crashing_images(plan, number)


def _score_without_crashing_images(plan: ScoringPlan, number: int) -> ShardResult:
    from distributed.scheduler import KilledWorker

    work = absolute(plan.request.work)
    with _connected(plan.request.dask_address) as client:

        def survives(start: int, stop: int) -> bool:
            try:
                client.submit(try_images, work, number, start, stop, pure=False).result()
            except (KilledWorker, *_DEATHS):
                return False
            return True

        # Images over the time limit have been recorded by now and are skipped on the next attempt.
        known, found = 0, len(read_timeouts(plan.request.work))
        while found > known:
            try:
                again: ShardResult = client.submit(score_shard, work, number, pure=False).result()
                return again
            except (KilledWorker, *_DEATHS):
                known, found = found, len(read_timeouts(plan.request.work))
        crashing = find_crashing_images(shard_images(plan, number), survives)
        try:
            result: ShardResult = client.submit(score_shard, work, number, crashing, pure=False).result()
        except (KilledWorker, *_DEATHS) as error:
            raise WorkError(
                f"shard {number} crashes its workers, though none of its images does so on its own",
                "workers that finish the shard",
                "Give the cluster's workers more memory and run the same command again.",
            ) from error
    return result


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise RequestError(
            "engine dask in an installation without Dask",
            "pixelmill with the extra `dask`",
            f"Install it here and on the workers: {install_command('dask')}",
        ) from error
    try:
        client: Any = Client(  # type: ignore[no-untyped-call]
            address, timeout=_SECONDS_TO_CONNECT, set_as_default=False
        )
    except (OSError, ValueError, TimeoutError) as error:
        raise RequestError(
            f"no Dask scheduler is reachable at {address} ({error})",
            "the address of a scheduler, such as tcp://scheduler:8786",
            "Start one with `dask scheduler`, or correct `dask_address`.",
        ) from error
    with client:
        if not client.nthreads():
            raise RequestError(
                f"the Dask scheduler at {address} has no workers",
                "at least one worker",
                f"Start workers: `dask worker {address} --nthreads 1 --nworkers 2`.",
            )
        yield client
