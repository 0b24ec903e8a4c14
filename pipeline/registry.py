"""Versions of models and the aliases that point to them, safe under several processes at once.

`models/NAME/VERSION/` is a bundle. A version is set aside by making its folder, empty, which only one
process can do; a bundle is published by renaming it there. `models/NAME/aliases.json` holds where each
alias points and where it pointed before; it is replaced whole, under a lock.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from pipeline.artifacts import MANIFEST, flush_to_disk, now, read_json, write_json
from pipeline.errors import RequestError
from pipeline.evaluation import METRICS_FILE
from pipeline.export import PARITY_FILE, ModelBundle, open_bundle, read_bundle_manifest

_ALIASES_FILE = "aliases.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SECONDS_FOR_LOCK = 60


class AliasMoved(Exception):
    """Another process moved an alias between a look at it and the attempt to move it."""


class _Aliases(BaseModel):
    aliases: dict[str, int] = {}
    history: dict[str, list[int]] = {}


@dataclass(frozen=True)
class ModelVersion:
    """A registered version: its metrics and parity as the bundle has them, and who points to it."""

    name: str
    version: int
    folder: Path
    aliases: tuple[str, ...]
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]


def reserve_version(store: Path, name: str) -> int:
    """Set the next version number of a model aside; no other process gets it."""
    models = _folder(store, name)
    models.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [int(path.name) for path in models.iterdir() if path.name.isdecimal()]
        version = max(taken, default=0) + 1
        try:
            (models / str(version)).mkdir()
        except FileExistsError:
            continue
        return version


def release_version(store: Path, name: str, version: int) -> None:
    """Give a version number back that nothing was published under."""
    folder = _folder(store, name) / str(version)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def register_bundle(store: Path, bundle: ModelBundle) -> ModelBundle:
    """Publish a bundle under its version by renaming its folder into the registry."""
    target = _folder(store, bundle.name) / str(bundle.version)
    bundle.folder.rename(target)
    flush_to_disk(target.parent)
    return replace(bundle, folder=target)


def list_models(store: Path) -> list[ModelVersion]:
    """Every registered version, by name and number."""
    models = store / "models"
    names = sorted(path.name for path in models.iterdir()) if models.is_dir() else []
    return [
        _read_version(store, _folder(store, name) / str(version))
        for name in names
        for version in _versions(store, name)
    ]


def show_model(store: Path, reference: str) -> ModelVersion:
    """One version by `name@alias` or `name@version`, or a bundle by its folder.

    Raises:
        RequestError: There is none of that name; says which there are.
    """
    return _read_version(store, find_folder(store, reference))


def find_bundle(store: Path, reference: str) -> ModelBundle:
    """Open the bundle that a folder's path or a `name@alias` or `name@version` stands for.

    Raises:
        RequestError: There is none; says which there are.
        WorkError: Its files are damaged.
    """
    return open_bundle(find_folder(store, reference))


def find_folder(store: Path, reference: str) -> Path:
    """The folder of the bundle that a path, a `name@alias` or a `name@version` stands for.

    Raises:
        RequestError: There is none; says which there are.
    """
    if Path(reference).is_dir():
        return Path(reference)
    name, _, wanted = reference.partition("@")
    versions = _versions(store, name)
    aliases = aliases_of(store, name) if versions else {}
    numbers = {str(version): version for version in versions}
    version = numbers.get(wanted, aliases.get(wanted))
    if version not in versions:
        raise _no_model(store, reference)
    return _folder(store, name) / str(version)


def aliases_of(store: Path, name: str) -> dict[str, int]:
    """Where each alias of a model points."""
    return _read_aliases(store, name).aliases


def promote_version(store: Path, name: str, version: int, alias: str, replacing: int | None = None) -> None:
    """Point an alias to a version.

    Args:
        store: The artifacts root.
        name: The model's name.
        version: The version to point to.
        alias: The alias to move.
        replacing: With a number, only if the alias still points there; 0 stands for nowhere.

    Raises:
        RequestError: There is no such version, or the alias is no name.
        AliasMoved: The alias points elsewhere than to `replacing`.
    """
    if not _ALIAS.fullmatch(alias):
        raise RequestError(
            f"alias {alias!r}",
            "a lower-case letter, then lower-case letters, digits, - and _",
            "Take a name such as champion.",
        )
    if version not in _versions(store, name):
        raise _no_model(store, f"{name}@{version}")
    with _changing_aliases(store, name) as content:
        before = content.aliases.get(alias)
        if replacing is not None and (before or 0) != replacing:
            raise AliasMoved
        if before == version:
            return
        if before is not None:
            content.history.setdefault(alias, []).append(before)
        content.aliases[alias] = version


def rollback_alias(store: Path, name: str, alias: str) -> int:
    """Point an alias back to where it pointed before, and return that version.

    Raises:
        RequestError: It never pointed anywhere else.
    """
    versions = _versions(store, name)
    if not versions:
        raise _no_model(store, f"{name}@{alias}")
    with _changing_aliases(store, name) as content:
        history = content.history.get(alias, [])
        # A version whose folder was removed since is no place to go back to, nor is where it points now.
        while history and (history[-1] not in versions or history[-1] == content.aliases.get(alias)):
            history.pop()
        if not history:
            raise RequestError(
                f"{name}@{alias} has no earlier version",
                "an alias that was promoted at least twice",
                f"See the versions with `pixelmill models list`, then promote one of {name}.",
            )
        version = history.pop()
        content.aliases[alias] = version
        return version


def _folder(store: Path, name: str) -> Path:
    return store / "models" / name


def _versions(store: Path, name: str) -> list[int]:
    folder = _folder(store, name)
    if not _NAME.fullmatch(name) or not folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in folder.iterdir() if path.name.isdecimal() and (path / MANIFEST).is_file()
    )


def _no_model(store: Path, reference: str) -> RequestError:
    models = store / "models"
    names = sorted(path.name for path in models.iterdir()) if models.is_dir() else []
    known = [
        f"{name}@{pointer}"
        for name in names
        for versions in [_versions(store, name)]
        if versions
        for pointer in (*sorted(aliases_of(store, name)), *versions)
    ]
    if known:
        return RequestError(
            f"no model {reference!r} in {models}",
            f"the folder of a bundle, or one of {', '.join(known)}",
            "See `pixelmill models list`.",
        )
    return RequestError(
        f"no model {reference!r}: {models} holds none",
        "the folder of a bundle, or a name@alias of the registry",
        "Train one with `pixelmill retrain`, or name another store with --store.",
    )


def _read_version(store: Path, folder: Path) -> ModelVersion:
    manifest = read_bundle_manifest(folder)
    name, version = manifest["name"], manifest["version"]
    aliases: dict[str, int] = {}
    if folder.resolve() == (_folder(store, name) / str(version)).resolve():
        aliases = aliases_of(store, name)
    return ModelVersion(
        name=name,
        version=version,
        folder=folder,
        aliases=tuple(sorted(alias for alias, to in aliases.items() if to == version)),
        manifest=manifest,
        metrics=read_json(folder / METRICS_FILE),
        parity=read_json(folder / PARITY_FILE),
    )


def _read_aliases(store: Path, name: str) -> _Aliases:
    path = _folder(store, name) / _ALIASES_FILE
    if not path.is_file():
        return _Aliases()
    try:
        return _Aliases.model_validate(read_json(path))
    except ValidationError as error:
        raise RequestError(
            f"{path} does not say where aliases point",
            'an object such as {"aliases": {"champion": 1}, "history": {}}',
            "Restore it from a copy, or remove it and promote a version.",
        ) from error


@contextmanager
def _changing_aliases(store: Path, name: str) -> Iterator[_Aliases]:
    folder = _folder(store, name)
    with FileLock(folder / ".aliases.lock", timeout=_SECONDS_FOR_LOCK):
        content = _read_aliases(store, name)
        before = dict(content.aliases)
        yield content
        if content.aliases != before:
            write_json(folder / _ALIASES_FILE, {**content.model_dump(), "changed_at": now()})
