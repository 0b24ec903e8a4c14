"""The number of processors available to this process, which may be fewer than the machine has."""

import math
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessorLimit:
    """The number of processors that may be used, and the reason for it."""

    count: int
    reason: str


def processor_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> ProcessorLimit:
    """The smaller of the CPU affinity and the control group's quota, at least 1.

    The quota is `cpu.max` of control groups version 2 (`QUOTA PERIOD` in microseconds, or `max`) or
    `cpu/cpu.cfs_quota_us` over `cpu/cpu.cfs_period_us` of version 1, rounded up.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    if quota is not None and quota < affinity:
        count = max(1, math.ceil(quota))
        return ProcessorLimit(count, f"the container's quota of {quota:g} processors")
    return ProcessorLimit(affinity, f"{affinity} processors available to this process")


def _quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)
