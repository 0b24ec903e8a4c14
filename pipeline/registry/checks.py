"""The permanent checks of a model: images whose label a person corrected, which no version may get wrong.

`models/NAME/checks/00000001.json` and so on: each run that learns of new corrections adds a list, and none is
ever changed. Later lists win. `models/NAME/checks/images/` holds the images themselves, so that a check
outlives the file of corrections and the dataset.
"""

import re
from collections.abc import Callable, Mapping
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts import now, replacing
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.registry.places import model_folder
from pixelmill.pipeline.storage import Location, create_file, file_sizes, read_content

_FOLDER = "checks"
_IMAGES = "images"
_LIST = re.compile(r"([0-9]{8})\.json")
_MAX_FILE_SIZE = 256 * 2**20


class PermanentCheck(BaseModel):
    """An image with the label that a person gave it.

    Attributes:
        sha256: SHA-256 of its content in the dataset, in hexadecimal.
        label: The class; None if the check is withdrawn.
        file: The name of the file with the image.
        name: Its path in the dataset.
        origin: Where it was: a full path or an address.
        who: Who corrected it; may be empty.
        when: When, as the file of corrections says; may be empty.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    label: str | None
    file: str = Field(pattern=r"^[0-9a-f]{64}(\.[a-z0-9]{1,8})?$")
    name: str
    origin: str
    who: str = ""
    when: str = ""


class _List(BaseModel):
    """The checks that one run added. The unique `id` tells whose write succeeded in a remote store."""

    id: str
    at: str
    by: str
    checks: list[PermanentCheck]


def read_checks(store: Location, name: str) -> dict[str, PermanentCheck]:
    """The checks of a model by SHA-256, withdrawn ones included; empty if there are none.

    Raises:
        WorkError: A list is damaged.
    """
    return _read(store, name)[0]


def has_checks(store: Location, name: str) -> bool:
    """Whether a model has, or has had, permanent checks; without reading them."""
    return any(map(_LIST.fullmatch, file_sizes(_folder(store, name))))


def add_checks(
    store: Location, name: str, found: Mapping[str, PermanentCheck], image: Callable[[str], bytes], by: str
) -> int:
    """Add checks that are new or have another label, and their images.

    Args:
        store: The artifacts root.
        name: The model's name.
        found: The checks by SHA-256.
        image: Returns the bytes of the image of a check, given its SHA-256.
        by: The run or the user.

    Returns:
        The number of checks added.

    Raises:
        WorkError: A list is damaged.
    """
    while True:
        known, last = _read(store, name)
        new = [
            check
            for sha256, check in sorted(found.items())
            if check.label != (known[sha256].label if sha256 in known else None)
        ]
        if not new:
            return 0
        present = file_sizes(_folder(store, name) / _IMAGES)
        for check in new:
            if check.label is not None and check.file not in present:
                with replacing(check_image(store, name, check)) as temporary:
                    temporary.write_bytes(image(check.sha256))
        added = _List(id=uuid4().hex, at=now(), by=by, checks=new)
        content = added.model_dump_json(indent=1).encode() + b"\n"
        if create_file(_folder(store, name) / f"{last + 1:08d}.json", content):
            return len(new)


def check_image(store: Location, name: str, check: PermanentCheck) -> Location:
    """The file with the image of a check."""
    return _folder(store, name) / _IMAGES / check.file


def _read(store: Location, name: str) -> tuple[dict[str, PermanentCheck], int]:
    """The checks, and the number of the last list."""
    folder = _folder(store, name)
    checks: dict[str, PermanentCheck] = {}
    numbers = sorted(int(match[1]) for match in map(_LIST.fullmatch, file_sizes(folder)) if match)
    for number in numbers:
        path = folder / f"{number:08d}.json"
        try:
            found = _List.model_validate_json(read_content(path, _MAX_FILE_SIZE))
        except ValidationError as error:
            raise WorkError(
                f"{path} is not a list of permanent checks",
                "a file as pixelmill wrote it",
                "Restore it from a copy: without it, corrected mistakes may come back.",
            ) from error
        checks |= {check.sha256: check for check in found.checks}
    return checks, numbers[-1] if numbers else 0


def _folder(store: Location, name: str) -> Location:
    return model_folder(store, name) / _FOLDER
