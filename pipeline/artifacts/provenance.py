"""The provenance of a result: time, package versions and git commit."""

import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_RECORDED_PACKAGES = (
    "pixelmill",
    "jax",
    "keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "prefect",
    "simplejpeg",
    "tensorflow-cpu",
    "tensorflow",
    "tf2onnx",
    "torch",
)


def now() -> str:
    """The current time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def provenance() -> dict[str, object]:
    """The current time, the package versions, and the git commit of the current folder."""
    return {
        "created_at": now(),
        "packages": installed_packages(),
        "git_commit": _git_commit(),
    }


@cache
def installed_packages() -> dict[str, str]:
    """The versions of the installed packages that a result may depend on."""
    found = {}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
