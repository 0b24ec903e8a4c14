"""The model registry: versions of models and the aliases that point to them, safe for concurrent processes.

`models/NAME/VERSION/` is a bundle. `models/NAME/aliases.json` records the version that each alias points to,
and its history; it is replaced atomically. `reservations` keeps two processes from taking the same
number.
"""

from pixelmill.pipeline.registry.alias_file import read_log
from pixelmill.pipeline.registry.aliases import (
    AliasMoved,
    aliases_of,
    log_refusal,
    promote_version,
    rollback_alias,
)
from pixelmill.pipeline.registry.log import LogEntry
from pixelmill.pipeline.registry.model_version import DamagedVersion, ModelVersion
from pixelmill.pipeline.registry.pending import mark_judged, pending_versions
from pixelmill.pipeline.registry.transfer import fetch_bundle
from pixelmill.pipeline.registry.versions import (
    find_bundle,
    find_version,
    list_models,
    newest_classes,
    register_bundle,
    registered_runs,
    release_version,
    require_model,
    reserve_version,
    show_model,
)

__all__ = [
    "AliasMoved",
    "DamagedVersion",
    "LogEntry",
    "ModelVersion",
    "aliases_of",
    "fetch_bundle",
    "find_bundle",
    "find_version",
    "list_models",
    "log_refusal",
    "mark_judged",
    "newest_classes",
    "pending_versions",
    "promote_version",
    "read_log",
    "register_bundle",
    "registered_runs",
    "release_version",
    "require_model",
    "reserve_version",
    "rollback_alias",
    "show_model",
]
