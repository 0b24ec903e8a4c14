"""The class folders of a dataset folder, and checks of its layout."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.datasets.readers import address_of
from pixelmill.pipeline.datasets.remote_files import list_remote, list_remote_folders
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.storage import Location, is_remote, require_reachable

_MAX_NAMES = 8


@dataclass(frozen=True)
class ClassFolder:
    """A class and the folders of its images.

    Attributes:
        name: The name of the folder in Unicode normalization form C.
        folders: One folder, or several whose names differ only in their Unicode normalization.
    """

    name: str
    folders: tuple[Location, ...]


def find_classes(folder: Location, key: str = "dataset.path") -> tuple[ClassFolder, ...]:
    """The classes of a dataset folder, in the natural order of their names: "10" comes after "2".

    Args:
        folder: A local or remote folder with one subfolder per class.
        key: The key of the recipe that names the folder, for error messages.

    Raises:
        RequestError: The folder does not exist or has fewer than two classes, or the name of a subfolder is
            not valid text.
    """
    require_folder(folder, key)
    found: dict[str, list[Location]] = {}
    for path in list_subfolders(folder):
        found.setdefault(normalize_label(_as_text(path)), []).append(path)
    classes = tuple(ClassFolder(name, tuple(found[name])) for name in sorted(found, key=natural_order))
    if len(classes) < 2:
        raise _too_few_classes(folder, classes, key)
    return classes


def require_folder(folder: Location, key: str) -> None:
    """Require that a local or remote folder exists.

    Raises:
        RequestError: It does not, or it cannot be reached.
    """
    if is_remote(folder):
        require_reachable(folder)
        exists = bool(list_remote(folder))
    else:
        exists = folder.is_dir()
    if not exists:
        is_file = not is_remote(folder) and folder.is_file()
        raise RequestError(
            f"{key} {printable(str(folder))} {'is a file' if is_file else 'does not exist'}",
            "a folder with one subfolder per class",
            f"Set it with `{key}=FOLDER`.",
        )


def require_disjoint_folders(first: tuple[str, Location], second: tuple[str, Location]) -> None:
    """Require that the folders of two splits share no files.

    Args:
        first: The key of the recipe that names a folder, and the folder.
        second: The same of another.

    Raises:
        RequestError: They are the same folder, or one contains the other.
    """
    (key, path), (other_key, other) = first, second
    place, other_place = (PurePosixPath(address_of(folder)) for folder in (path, other))
    if place == other_place:
        relation = f"is the folder of {key}"
    elif place in other_place.parents:
        relation = f"lies inside {key} {printable(str(path))}"
    elif other_place in place.parents:
        relation = f"contains {key} {printable(str(path))}"
    else:
        return
    fraction = other_key.replace("_path", "_fraction")
    raise RequestError(
        f"{other_key} {printable(str(other))} {relation}",
        "folders that share no images",
        f"Choose another folder, or omit {other_key}: {fraction} of the images are then held out.",
    )


def layout_warnings(folder: Location, classes: Sequence[ClassFolder]) -> Iterator[str]:
    """Warnings about class folders that look wrong but may be right."""
    for found in classes:
        if len(found.folders) > 1:
            names = " and ".join(ascii(path.name) for path in found.folders)
            yield (
                f"{printable(str(folder))}: {names} are the same name in two Unicode forms; "
                f"their images are merged into one class, {printable(found.name)}"
            )
    folded: dict[str, list[str]] = {}
    for found in classes:
        folded.setdefault(found.name.casefold(), []).append(found.name)
    for spellings in folded.values():
        if len(spellings) > 1:
            yield (
                f"{printable(str(folder))}: {join_names(spellings)} differ in letter case alone, and are "
                "treated as separate classes"
            )
    if is_remote(folder):
        return  # To look into every class folder would list all of the images once more.
    inner = {frozenset(subfolder_names(found)) for found in classes}
    shared = min(inner, key=len)
    if len(inner) == 1 and len(shared) > 1:
        yield (
            f"{printable(str(folder))}: every class folder holds the same subfolders "
            f"({join_names(sorted(shared, key=natural_order))}); if those are the real classes, put the "
            "images of each into a single folder"
        )


def list_subfolders(folder: Location) -> list[Location]:
    """The subfolders of a folder, including linked ones, by name; hidden folders and clutter are left out."""
    if is_remote(folder):
        return list_remote_folders(folder)
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and not is_clutter(entry.name)
        )


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key that compares runs of digits by value: "2" comes before "10"."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _as_text(path: Location) -> str:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"dataset folder {printable(str(path.parent))} has a subfolder {os.fsencode(path.name)!r}",
            "class names in valid UTF-8",
            "Rename the subfolder.",
        ) from error
    return path.name


def _too_few_classes(folder: Location, classes: Sequence[ClassFolder], key: str) -> RequestError:
    inner = enter(folder)
    deeper = inner != folder and len(list_subfolders(inner)) > 1
    return RequestError(
        f"{key} {printable(str(folder))} has {len(classes)} subfolder{'s' * (len(classes) != 1)}",
        "one subfolder per class, at least two",
        f"Did you mean `{key}={printable(str(inner))}`?"
        if deeper
        else "Sort the images into subfolders named after their classes.",
    )


def subfolder_names(found: ClassFolder) -> set[str]:
    """The names of the folders in a class folder, in Unicode normalization form C."""
    return {normalize_label(path.name) for folder in found.folders for path in list_subfolders(enter(folder))}


def enter(folder: Location) -> Location:
    """Descend while a folder contains only another folder: archives often unpack to `pets/pets/...`.

    A remote folder is returned as it is.
    """
    if is_remote(folder):
        return folder
    seen = {address_of(folder)}
    while True:
        with os.scandir(str(folder)) as entries:
            first_two = list(islice((entry for entry in entries if not is_clutter(entry.name)), 2))
        if len(first_two) != 1 or not (inside := list_subfolders(folder)) or address_of(inside[0]) in seen:
            return folder
        folder = inside[0]
        seen.add(address_of(folder))


def join_names(names: Sequence[str]) -> str:
    """The first names and the number of the others, for messages."""
    shown = ", ".join(printable(name) for name in names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
