"""Threads follow the container's quota: control groups of both versions."""

import os
from pathlib import Path

import pytest

from pixelmill.pipeline.resources import ProcessorLimit, processor_limit

ALLOWED = len(os.sched_getaffinity(0))


def version_2(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def version_1(folder: Path, quota: str, period: str) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu/cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu/cpu.cfs_period_us").write_text(period)
    return folder


def expected(quota: float, rounded_up: int) -> ProcessorLimit:
    if quota < ALLOWED:
        return ProcessorLimit(rounded_up, f"the container's quota of {quota:g} processors")
    return ProcessorLimit(ALLOWED, f"{ALLOWED} processors available to this process")


@pytest.mark.parametrize(
    ("microseconds", "quota", "rounded_up"),
    [(1000, 0.01, 1), (50_000, 0.5, 1), (100_000, 1, 1), (150_000, 1.5, 2), (200_000, 2, 2)],
)
def test_a_quota_is_rounded_up(microseconds: int, quota: float, rounded_up: int, tmp_path: Path) -> None:
    second, first = tmp_path / "second", tmp_path / "first"
    second.mkdir()
    first.mkdir()
    limit = expected(quota, rounded_up)
    assert processor_limit(version_2(second, f"{microseconds} 100000\n")) == limit
    assert processor_limit(version_1(first, f"{microseconds}\n", "100000\n")) == limit


def test_half_a_processor_counts_as_one(tmp_path: Path) -> None:
    limit = processor_limit(version_2(tmp_path, "50000 100000\n"))
    assert limit == ProcessorLimit(1, "the container's quota of 0.5 processors")


def test_a_quota_above_the_affinity_is_ignored(tmp_path: Path) -> None:
    limit = processor_limit(version_2(tmp_path, f"{(ALLOWED + 3) * 100_000} 100000\n"))
    assert limit == ProcessorLimit(ALLOWED, f"{ALLOWED} processors available to this process")


def test_no_quota(tmp_path: Path) -> None:
    unlimited = ProcessorLimit(ALLOWED, f"{ALLOWED} processors available to this process")
    second, first = tmp_path / "second", tmp_path / "first"
    second.mkdir()
    first.mkdir()
    assert processor_limit(version_2(second, "max 100000\n")) == unlimited
    assert processor_limit(version_1(first, "-1\n", "100000\n")) == unlimited
    assert processor_limit(tmp_path) == unlimited
    assert processor_limit(tmp_path / "nowhere") == unlimited


@pytest.mark.parametrize("content", ["", "max"])
def test_a_malformed_quota_is_ignored(content: str, tmp_path: Path) -> None:
    limit = processor_limit(version_2(tmp_path, content))
    assert limit == ProcessorLimit(ALLOWED, f"{ALLOWED} processors available to this process")


def test_the_affinity_of_the_process_is_respected(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        limit = processor_limit(tmp_path)
    finally:
        os.sched_setaffinity(0, before)
    assert limit == ProcessorLimit(1, "1 processors available to this process")


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= processor_limit().count <= ALLOWED
