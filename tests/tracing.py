"""The addresses that a command and its child processes contact, according to the kernel."""

import ipaddress
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_CALLS = "connect,sendto,sendmsg,sendmmsg"
_DNS = 53
_SOCKET_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((?P<port>\d+)\).*?"
    r"(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<address>[^\"]+)\""
)


@dataclass(frozen=True)
class Traced:
    """A finished command, and the addresses that it tried to contact: `ADDRESS:PORT`, in order."""

    code: int
    output: str
    errors: str
    outside: list[str]


def run_traced(command: list[str], trace: Path, environment: dict[str, str], timeout: float = 280) -> Traced:
    """Run a command, and record every address that it or a child process connects or sends to."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here; install the packages in .ci/apt-packages.txt")
    traced = [strace, "-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", f"trace={_CALLS}", "-o", str(trace)]
    if subprocess.run([*traced, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not permitted here; allow ptrace")
    done = subprocess.run(
        [*traced, *command], capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )
    return Traced(done.returncode, done.stdout, done.stderr, outside_addresses(trace.read_text()))


def outside_addresses(trace: str) -> list[str]:
    """The addresses in a trace outside of this machine, including name servers anywhere."""
    found = []
    for match in _SOCKET_ADDRESS.finditer(trace):
        address, port = ipaddress.ip_address(match["address"]), int(match["port"])
        if not address.is_loopback or port == _DNS:
            found.append(f"{address}:{port}")
    return found
