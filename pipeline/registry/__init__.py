"""Versions of models and the aliases that point to them, safe under several processes at once.

`models/NAME/VERSION/` is a bundle, and `models/NAME/aliases.json` holds where each alias points and where
it pointed before; it is replaced whole. `storage` does what must be safe, `remote` does it in an object
store.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.artifacts import MANIFEST, now, read_json
from pipeline.errors import RequestError
from pipeline.evaluation import METRICS_FILE
from pipeline.export import PARITY_FILE, ModelBundle, Precision, open_bundle, read_bundle_manifest
from pipeline.locations import children, content_of, is_remote, parse_location
from pipeline.registry.remote import RemoteStorage
from pipeline.registry.storage import LocalStorage, Storage

_ALIASES_FILE = "aliases.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
T = TypeVar("T")


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
    return _storage_of(store).reserve(_folder(store, name))


def release_version(store: Path, name: str, version: int) -> None:
    """Give a version number back that nothing was published under."""
    _storage_of(store).release(_folder(store, name) / str(version))


def register_bundle(store: Path, bundle: ModelBundle) -> ModelBundle:
    """Publish a bundle, whose folder is on this machine, under its version."""
    target = _folder(store, bundle.name) / str(bundle.version)
    _storage_of(store).publish(bundle.folder, target)
    return replace(bundle, folder=target)


def list_models(store: Path) -> list[ModelVersion]:
    """Every registered version, by name and number."""
    return [
        _read_version(store, _folder(store, name) / str(version))
        for name in _names(store)
        for version in _versions(store, name)
    ]


def show_model(store: Path, reference: str) -> ModelVersion:
    """One version by `name@alias` or `name@version`, or a bundle by its folder.

    Raises:
        RequestError: There is none of that name; says which there are.
    """
    return _read_version(store, _find_folder(store, reference))


def find_bundle(store: Path, reference: str, precision: Precision = "fp32") -> ModelBundle:
    """Open the bundle that a folder's path or a `name@alias` or `name@version` stands for.

    A remote one is fetched into this machine's cache first, if it is not there yet.

    Raises:
        RequestError: There is none; says which there are.
        WorkError: Its files are damaged.
    """
    folder = _find_folder(store, reference)
    bundle = open_bundle(fetch_bundle(folder), precision)
    return replace(bundle, address=str(folder)) if is_remote(folder) else bundle


def fetch_bundle(folder: Path) -> Path:
    """A folder of this machine that holds a bundle: its own, or a verified copy of a remote one.

    Raises:
        WorkError: Its files are damaged.
    """
    return _storage_of(folder).fetch(folder)


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

    def point(content: _Aliases) -> None:
        before = content.aliases.get(alias)
        if replacing is not None and (before or 0) != replacing:
            raise AliasMoved
        if before is not None and before != version:
            content.history.setdefault(alias, []).append(before)
        content.aliases[alias] = version

    _change_aliases(store, name, point)


def rollback_alias(store: Path, name: str, alias: str) -> int:
    """Point an alias back to where it pointed before, and return that version.

    Raises:
        RequestError: It never pointed anywhere else.
    """
    versions = _versions(store, name)
    if not versions:
        raise _no_model(store, f"{name}@{alias}")

    def point_back(content: _Aliases) -> int:
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

    return _change_aliases(store, name, point_back)


def _storage_of(place: Path) -> Storage:
    return RemoteStorage() if is_remote(place) else LocalStorage()


def _find_folder(store: Path, reference: str) -> Path:
    """Where the bundle lies that a path, an address, a `name@alias` or a `name@version` stands for."""
    if "://" in reference or Path(reference).is_dir():
        return parse_location(reference)
    name, _, wanted = reference.partition("@")
    versions = _versions(store, name)
    aliases = aliases_of(store, name) if versions else {}
    numbers = {str(version): version for version in versions}
    version = numbers.get(wanted, aliases.get(wanted))
    if version not in versions:
        raise _no_model(store, reference)
    return _folder(store, name) / str(version)


def _folder(store: Path, name: str) -> Path:
    return store / "models" / name


def _names(store: Path) -> list[str]:
    models = store / "models"
    return sorted(path.name for path in children(models)) if models.is_dir() else []


def _versions(store: Path, name: str) -> list[int]:
    folder = _folder(store, name)
    if not _NAME.fullmatch(name) or not folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in children(folder) if path.name.isdecimal() and (path / MANIFEST).exists()
    )


def _no_model(store: Path, reference: str) -> RequestError:
    models = store / "models"
    known = [
        f"{name}@{pointer}"
        for name in _names(store)
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
    return _parse_aliases(path, content_of(path) if path.exists() else None)


def _parse_aliases(path: Path, content: bytes | None) -> _Aliases:
    if content is None:
        return _Aliases()
    try:
        return _Aliases.model_validate_json(content)
    except ValidationError as error:
        raise RequestError(
            f"{path} does not say where aliases point",
            'an object such as {"aliases": {"champion": 1}, "history": {}}',
            "Restore it from a copy, or remove it and promote a version.",
        ) from error


def _change_aliases(store: Path, name: str, change: Callable[[_Aliases], T]) -> T:
    """Let a function change where aliases point; it is called again where another process came first."""
    path = _folder(store, name) / _ALIASES_FILE
    answers: list[T] = []

    def rewrite(before: bytes | None) -> str | None:
        content = _parse_aliases(path, before)
        pointing = dict(content.aliases)
        answers.append(change(content))
        if content.aliases == pointing:
            return None
        return json.dumps({**content.model_dump(), "changed_at": now()}, indent=2) + "\n"

    _storage_of(store).change(path, rewrite)
    return answers[-1]
