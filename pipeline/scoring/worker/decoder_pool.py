"""Processes that decode images for the process that owns the GPU, so that decoding overlaps inference."""

import ctypes
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.processes import spawned_pool
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.plan import read_plan
from pixelmill.pipeline.scoring.worker.preparation import Preparation, Prepared, batches
from pixelmill.pipeline.storage import absolute, parse_location

_SLOTS_A_PROCESS = 2
IMAGES_A_SLOT = 64


class DecoderPool:
    """Prepares images in separate processes, which return the pixels through shared memory."""

    def __init__(self, plan: ScoringPlan, processes: int) -> None:
        spec = plan.image
        self._shape = (IMAGES_A_SLOT, spec.height, spec.width, spec.channels)
        context = multiprocessing.get_context("spawn")
        slots = [
            context.RawArray(ctypes.c_uint8, int(np.prod(self._shape)))
            for _ in range(_SLOTS_A_PROCESS * processes)
        ]
        self._slots = [_as_images(slot, self._shape) for slot in slots]
        arguments = (absolute(plan.request.work), slots, self._shape)
        self._closing = ExitStack()
        self._pool = self._closing.enter_context(spawned_pool(processes, _start_decoder, arguments))

    def prepare_all(self, images: Sequence[ListedImage]) -> Iterator[Prepared]:
        """Prepare images several groups ahead; yields the groups in order."""
        free = deque(range(len(self._slots)))
        running: deque[tuple[int, Future[Prepared]]] = deque()
        due = batches(images, IMAGES_A_SLOT)
        while True:
            while free and (batch := next(due, None)) is not None:
                slot = free.popleft()
                running.append((slot, self._pool.submit(_prepare, slot, *batch)))
            if not running:
                return
            slot, future = running.popleft()
            prepared = future.result()
            # Copied, because the slot is reused while these are being predicted.
            pixels = self._slots[slot][: len(prepared.pixels)].copy()
            places = [place for place, _ in prepared.pixels]
            free.append(slot)
            yield replace(prepared, pixels=list(zip(places, pixels, strict=True)))

    def close(self) -> None:
        """Stop the processes."""
        self._closing.close()


_preparation: Preparation | None = None
_slots: list[Pixels] = []


def _start_decoder(work: str, slots: list[Any], shape: tuple[int, ...]) -> None:
    global _preparation  # noqa: PLW0603  # A pool's initializer has no other way to pass on its result.
    _preparation = Preparation(read_plan(parse_location(work)))
    _slots.extend(_as_images(slot, shape) for slot in slots)


def _prepare(slot: int, start: int, images: Sequence[ListedImage]) -> Prepared:
    if _preparation is None:
        raise RuntimeError("_start_decoder has not run")
    prepared = _preparation.prepare(images, start, {})
    nothing = np.empty(0, np.uint8)
    for at, (_, pixels) in enumerate(prepared.pixels):
        _slots[slot][at] = pixels
    return replace(prepared, pixels=[(place, nothing) for place, _ in prepared.pixels])


def _as_images(slot: Any, shape: tuple[int, ...]) -> Pixels:
    return np.frombuffer(slot, np.uint8).reshape(shape)
