"""Promoting a version to an alias, and rolling an alias back to its previous version."""

import re
from logging import getLogger

from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.registry.alias_file import Aliases, change_aliases, read_aliases
from pixelmill.pipeline.registry.log import LogEntry, user_name
from pixelmill.pipeline.registry.pending import mark_judged
from pixelmill.pipeline.registry.places import version_numbers
from pixelmill.pipeline.registry.versions import no_model, verify_version
from pixelmill.pipeline.storage import Location

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_log = getLogger(__name__)


class AliasMoved(Exception):
    """Another process moved an alias after it was read and before it could be moved."""


def aliases_of(store: Location, name: str) -> dict[str, int]:
    """The version that each alias of a model points to."""
    return read_aliases(store, name).aliases


def promote_version(
    store: Location,
    name: str,
    version: int,
    alias: str,
    replacing: int | None = None,
    *,
    reason: str = "by hand, without a gate",
    by: str | None = None,
    tested_on: str | None = None,
) -> None:
    """Point an alias to a version after verifying all of the version's files.

    Args:
        store: The artifacts root.
        name: The model's name.
        version: The version to point to.
        alias: The alias to move.
        replacing: The version that the alias must currently point to, 0 for none; not checked when None.
        reason: For the log: why.
        by: For the log: the run or the user; the user of this process when None.
        tested_on: For the log: the fingerprint of the test images that decided.

    Raises:
        RequestError: There is no such version, or the alias is not a valid name.
        WorkError: The version is damaged.
        AliasMoved: The alias does not point to `replacing`.
    """
    if not _ALIAS.fullmatch(alias):
        raise RequestError(
            f"alias {alias!r}",
            "a lower-case letter, then lower-case letters, digits, - and _",
            "Use a name such as champion.",
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
        if before != version:
            content.add_entry(
                LogEntry(
                    alias=alias,
                    before=before,
                    to=version,
                    action="promoted",
                    by=by or user_name(),
                    reason=reason,
                    tested_on=tested_on,
                )
            )

    change_aliases(store, name, point)
    mark_judged(store, name, version)


def log_refusal(
    store: Location, name: str, version: int, alias: str, *, reason: str, by: str, tested_on: str | None
) -> None:
    """Write to the log that a gate refused a version, and leave the alias as it is."""

    def refuse(content: Aliases) -> None:
        content.add_entry(
            LogEntry(
                alias=alias,
                before=content.aliases.get(alias),
                to=version,
                action="refused",
                by=by,
                reason=reason,
                tested_on=tested_on,
            )
        )

    change_aliases(store, name, refuse)


def rollback_alias(store: Location, name: str, alias: str, reason: str = "by hand") -> int:
    """Point an alias back to its previous version, and return that version.

    Versions that were removed or are damaged are skipped, the latter with a warning.

    Raises:
        RequestError: There is no earlier version.
    """
    if not version_numbers(store, name):
        raise no_model(store, f"{name}@{alias}")

    def point_back(content: Aliases) -> int:
        # List the versions under the lock, because another process may have registered some in the meantime.
        versions = version_numbers(store, name)
        history = content.history.get(alias, [])
        while history:
            version = history.pop()
            if version == content.aliases.get(alias) or version not in versions:
                continue
            if not _is_intact(store, name, version):
                continue
            before, content.aliases[alias] = content.aliases.get(alias), version
            content.add_entry(
                LogEntry(
                    alias=alias,
                    before=before,
                    to=version,
                    action="rolled back",
                    by=user_name(),
                    reason=reason,
                )
            )
            return version
        raise RequestError(
            f"{name}@{alias} has no earlier version",
            "an alias that was promoted at least twice, with an undamaged earlier version",
            f"List the versions with `pixelmill models list`, then promote one of {name}.",
        )

    return change_aliases(store, name, point_back)


def _is_intact(store: Location, name: str, version: int) -> bool:
    try:
        verify_version(store, name, version)
    except (PixelmillError, OSError) as error:
        _log.warning("%s@%d is skipped because it is damaged: %s", name, version, error)
        return False
    return True
