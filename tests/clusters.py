"""A Dask cluster on loopback: a scheduler and worker processes, which tests may kill."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cluster:
    """The `address` of the scheduler, and a `client` for inspecting it."""

    address: str
    client: Any

    def worker_processes(self) -> list[int]:
        """The process IDs of the workers; each has a nanny that restarts it."""
        return list(self.client.run(os.getpid).values())


@contextmanager
def running_cluster(workers: int = 2, environment: dict[str, str] | None = None) -> Iterator[Cluster]:
    """Run a scheduler and single-threaded workers during the block."""
    from distributed import Client

    dask = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    quiet["env"] = {**os.environ, **(environment or {})}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"], **quiet
    )
    processes = [scheduler]
    try:
        address = _address(scheduler)
        listening = ["--host", "127.0.0.1", "--no-dashboard"]
        many = ["--nthreads", "1", "--nworkers", str(workers), "--death-timeout", "60"]
        if workers:
            processes.append(subprocess.Popen([*dask, "worker", address, *listening, *many], **quiet))
        client: Any = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
        with client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
            yield Cluster(address, client)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.communicate(timeout=60)


def _address(scheduler: "subprocess.Popen[str]") -> str:
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        _, found, address = line.partition("Scheduler at:")
        if found:
            return address.strip()
    raise RuntimeError("the scheduler did not start")
