"""Putting a finished bundle anywhere: a folder of this machine or an address, whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.artifacts import publishing, verify_files
from pipeline.errors import RequestError
from pipeline.locations import children, is_remote, require_reachable
from pipeline.registry.remote import RemoteStorage


def require_free(output: Path) -> None:
    """See that a bundle may go to a place.

    Raises:
        RequestError: Something is there already, or it cannot be reached.
    """
    require_reachable(output)
    if output.is_file():
        raise RequestError(f"output {output} is a file", "a new folder", "Choose another --output.")
    if (is_remote(output) or output.is_dir()) and children(output):
        raise RequestError(
            f"output {output}, which is not empty", "a new folder or an empty one", "Choose another --output."
        )


def deliver_bundle(bundle: Path, output: Path) -> None:
    """Copy a bundle of this machine to its destination; a reader sees all of it or no manifest.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    if is_remote(output):
        verify_files(bundle)
        RemoteStorage().publish(bundle, output)
    else:
        copy_bundle(bundle, output)


def copy_bundle(bundle: Path, target: Path, fill: Callable[[Path], None] | None = None) -> None:
    """Copy a bundle to a folder of this machine.

    Args:
        bundle: The finished one.
        target: Must not be a finished artifact yet.
        fill: Adds files to the copy before its manifest is written.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    manifest = verify_files(bundle)
    facts = {name: value for name, value in manifest.items() if name != "files"}
    with publishing(target, facts) as staging:
        for name in manifest["files"]:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, staging / name)
        if fill is not None:
            fill(staging)
