"""Versions of models that nothing needs, and their removal."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pixelmill.pipeline.artifacts import MANIFEST, now, read_manifest, write_json
from pixelmill.pipeline.bundles import METRICS_FILE
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.prune import Candidate, PruneRequest
from pixelmill.pipeline.registry import pending_versions
from pixelmill.pipeline.registry.alias_file import Aliases, change_aliases, read_aliases
from pixelmill.pipeline.registry.places import model_folder, model_names, version_folder, version_numbers
from pixelmill.pipeline.registry.use import if_unused
from pixelmill.pipeline.storage import (
    Location,
    is_remote,
    read_content,
    remove_file,
    remove_folder,
    temporary_sibling,
)

REMOVED_FOLDER = "removed"
"""In the folder of a model: what its removed versions were."""


@dataclass(frozen=True)
class KeptVersions:
    """What the kept versions need.

    Attributes:
        runs: The IDs of the runs that made them.
        fingerprints: The fingerprints of the datasets that they were trained on.
        manifests: The content of their manifests.
    """

    runs: frozenset[str]
    fingerprints: frozenset[str]
    manifests: tuple[bytes, ...]


def find_versions(request: PruneRequest) -> tuple[list[Candidate], KeptVersions]:
    """The versions that may be removed, oldest first, and what the others need.

    Raises:
        RequestError: The aliases of a model are malformed.
    """
    candidates: list[Candidate] = []
    kept: list[tuple[dict[str, Any], bytes]] = []
    for name in model_names(request.store):
        needed = needed_versions(request.store, name, request.keep)
        for version in version_numbers(request.store, name):
            folder = version_folder(request.store, name, version)
            manifest = _read(folder)
            if manifest is None:
                continue  # It is damaged, which a person should look at.
            if version not in needed and _is_old(manifest, request) and _is_unused(folder):
                size = sum(facts["size"] for facts in manifest["files"].values())
                reason = "neither an alias nor a rollback needs it"
                candidates.append(Candidate("version", f"{name}@{version}", (folder,), size, reason))
            else:
                kept.append((manifest, read_content(folder / MANIFEST)))
    facts = [manifest for manifest, _ in kept]
    return candidates, KeptVersions(
        runs=frozenset(str(each["run_id"]) for each in facts if each.get("run_id")),
        fingerprints=frozenset(
            str(each["dataset_fingerprint"]) for each in facts if each.get("dataset_fingerprint")
        ),
        manifests=tuple(content for _, content in kept),
    )


def needed_versions(store: Location, name: str, keep: int) -> set[int]:
    """The versions that an alias points to or can be rolled back to, that are pending, and the newest."""
    versions = version_numbers(store, name)
    return {
        *_named_by(read_aliases(store, name), versions, keep),
        *pending_versions(store, name),
        *versions[-keep:],
    }


def remove_version(store: Location, candidate: Candidate) -> bool:
    """Remove a version, unless something needs it now; returns whether it was removed.

    Its manifest and metrics are kept in `removed/` of the model, because the log and tables name it.
    """
    (folder,) = candidate.paths
    name, version = candidate.name.rpartition("@")[0], int(candidate.name.rpartition("@")[2])
    removed: list[bool] = []

    def remove(aliases: Aliases) -> None:
        """Called while no other process can move an alias; nothing is written, for there is no new entry."""
        is_named = version in _named_by(aliases, version_numbers(store, name), keep=1)
        removed.append(
            not is_named and version not in pending_versions(store, name) and _remove(store, folder)
        )

    change_aliases(store, name, remove)
    return removed[-1]


def _remove(store: Location, folder: Location) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    record = model_folder(store, folder.parent.name) / REMOVED_FOLDER / f"{int(folder.name):08d}.json"
    if is_remote(folder):
        write_json(record, _describe(folder))
        # Without its manifest, it is no version; and its number stays taken until all is gone.
        remove_file(folder / MANIFEST)
        remove_folder(folder)
        return True
    with if_unused(folder) as unused:
        if unused:
            write_json(record, _describe(folder))
            # By one renaming, so that no one finds half a version.
            temporary = temporary_sibling(folder)
            folder.rename(temporary)
            shutil.rmtree(temporary, ignore_errors=True)
        return unused


def _describe(folder: Location) -> dict[str, Any]:
    manifest = _read(folder) or {}
    metrics = read_content(folder / METRICS_FILE).decode() if (folder / METRICS_FILE).exists() else None
    return {"removed_at": now(), "manifest": manifest, METRICS_FILE: metrics}


def _named_by(aliases: Aliases, versions: list[int], keep: int) -> Iterator[int]:
    """The versions that the aliases point to, and the last `keep` that each can be rolled back to."""
    yield from aliases.aliases.values()
    for alias, history in aliases.history.items():
        earlier: list[int] = []
        for version in reversed(history):
            if version in versions and version != aliases.aliases.get(alias) and version not in earlier:
                earlier.append(version)
        yield from earlier[:keep]


def _is_unused(folder: Location) -> bool:
    if is_remote(folder):
        return True  # Whoever uses it has a copy.
    with if_unused(folder) as unused:
        return unused


def _is_old(manifest: dict[str, Any], request: PruneRequest) -> bool:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(manifest["created_at"]))
    except (KeyError, ValueError, TypeError):
        return False
    return age >= request.older_than


def _read(folder: Location) -> dict[str, Any] | None:
    try:
        return read_manifest(folder)
    except (PixelmillError, OSError):
        return None
