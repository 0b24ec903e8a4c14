"""Moving aliases: to a version, and back to the one before."""

import re
from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.registry.alias_file import Aliases, change_aliases, read_aliases
from pixelmill.pipeline.registry.pending import mark_judged
from pixelmill.pipeline.registry.places import version_numbers
from pixelmill.pipeline.registry.versions import no_model, verify_version

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_log = getLogger(__name__)


class AliasMoved(Exception):
    """Another process moved an alias between a look at it and the attempt to move it."""


def aliases_of(store: Path, name: str) -> dict[str, int]:
    """Where each alias of a model points."""
    return read_aliases(store, name).aliases


def promote_version(store: Path, name: str, version: int, alias: str, replacing: int | None = None) -> None:
    """Point an alias to a version whose files are all as its manifest lists them.

    Args:
        store: The artifacts root.
        name: The model's name.
        version: The version to point to.
        alias: The alias to move.
        replacing: With a number, only if the alias still points there; 0 stands for nowhere.

    Raises:
        RequestError: There is no such version, or the alias is no name.
        WorkError: The version is damaged.
        AliasMoved: The alias points elsewhere than to `replacing`.
    """
    if not _ALIAS.fullmatch(alias):
        raise RequestError(
            f"alias {alias!r}",
            "a lower-case letter, then lower-case letters, digits, - and _",
            "Take a name such as champion.",
        )
    if version not in version_numbers(store, name):
        raise no_model(store, f"{name}@{version}")
    verify_version(store, name, version)

    def point(content: Aliases) -> None:
        before = content.aliases.get(alias)
        if replacing is not None and (before or 0) != replacing:
            raise AliasMoved
        if before is not None and before != version:
            content.history.setdefault(alias, []).append(before)
        content.aliases[alias] = version

    change_aliases(store, name, point)
    mark_judged(store, name, version)


def rollback_alias(store: Path, name: str, alias: str) -> int:
    """Point an alias back to where it pointed before, and return that version.

    Versions that were removed or are damaged are passed over, the latter with a warning.

    Raises:
        RequestError: It never pointed anywhere else.
    """
    if not version_numbers(store, name):
        raise no_model(store, f"{name}@{alias}")

    def point_back(content: Aliases) -> int:
        # Listed under the lock: another process may have registered and promoted versions until now.
        versions = version_numbers(store, name)
        history = content.history.get(alias, [])
        while history:
            version = history.pop()
            if version == content.aliases.get(alias) or version not in versions:
                continue
            if not _is_whole(store, name, version):
                continue
            content.aliases[alias] = version
            return version
        raise RequestError(
            f"{name}@{alias} has no earlier version",
            "an alias that was promoted at least twice, and an earlier version that is undamaged",
            f"See the versions with `pixelmill models list`, then promote one of {name}.",
        )

    return change_aliases(store, name, point_back)


def _is_whole(store: Path, name: str, version: int) -> bool:
    try:
        verify_version(store, name, version)
    except (PixelmillError, OSError) as error:
        _log.warning("%s@%d is passed over, because it is damaged: %s", name, version, error)
        return False
    return True
