"""Copies of the images whose prediction is uncertain, in a folder for each predicted class."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from pixelmill.pipeline.artifacts import replacing
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape, unescape
from pixelmill.pipeline.predictions.parts import read_row_groups
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.worker.source_reader import read_images
from pixelmill.pipeline.storage import Location, is_remote

_HASH_DIGITS = 12
_AT_ONCE = 1000
_LONGEST_NAME = 150


def check_copies(request: ScoringRequest) -> None:
    """Check `below` and `copy_to`.

    Raises:
        RequestError: One is given without the other, or the folder is an address or holds the images.
    """
    if (request.below is None) != (request.copy_to is None):
        raise RequestError(
            f"`below` {request.below} with `copy_to` {request.copy_to}",
            "both: a probability, and a folder for the images below it",
            "Give both options or neither.",
        )
    folder = request.copy_to
    if folder is None:
        return
    if is_remote(folder) or (folder.exists() and not folder.is_dir()):
        problem = "is an address" if is_remote(folder) else "is a file"
        raise RequestError(f"`copy_to` {folder}, which {problem}", "a folder on this machine", "Change it.")
    if not is_remote(request.images) and folder.resolve().is_relative_to(request.images.resolve()):
        raise RequestError(
            f"`copy_to` {folder}, which is in the folder of images", "a folder outside of it", "Change it."
        )


def copy_uncertain(plan: ScoringPlan, parts: list[Location]) -> int:
    """Copy the scored images with a probability below `below` to `copy_to/CLASS/SHA256-NAME`.

    A file that is there already is left as it is, and an image that has changed since it was scored is not
    copied.

    Returns:
        The number of copies in the folder that belong to this table.
    """
    folder, limit = plan.request.copy_to, plan.request.below
    if not isinstance(folder, Path) or limit is None:
        return 0
    copies = 0
    for block in _blocks(parts, limit):
        due = {path: (folder / _folder_of(label), sha256) for path, sha256, label in block}
        for path, content in read_images(plan.source, list(due)):
            place, sha256 = due[path]
            if hashlib.sha256(content).hexdigest() != sha256:
                continue
            target = place / f"{sha256[:_HASH_DIGITS]}-{_name_of(path)}"
            if not target.exists():
                with replacing(target) as temporary:
                    temporary.write_bytes(content)
            copies += 1
    return copies


def _blocks(parts: list[Location], limit: float) -> Iterator[list[tuple[str, str, str]]]:
    """Path, SHA-256 and label of the images below the limit, some at a time."""
    import pyarrow.compute as pc

    block: list[tuple[str, str, str]] = []
    for part in parts:
        for rows in read_row_groups(part):
            chosen = rows.filter(pc.less(rows["probability"], limit))  # Failed rows are null, so left out.
            columns = (chosen[name].to_pylist() for name in ("image_path", "image_sha256", "label"))
            block += zip(*columns, strict=True)
            if len(block) >= _AT_ONCE:
                yield block
                block = []
    if block:
        yield block


def _folder_of(label: str) -> str:
    name = escape(label).replace("/", "%2F")
    return name.replace(".", "%2E") if set(name) <= {"."} else name


def _name_of(path: str) -> str:
    name = unescape(path).rstrip("/").rpartition("/")[2]
    # The end of a long name holds its extension.
    return escape(re.sub(r"[?*:|<>\"\\]", "_", name))[-_LONGEST_NAME:]
