"""Versions of models and the aliases that point to them, safe under several processes at once.

`models/NAME/VERSION/` is a bundle, and `models/NAME/aliases.json` holds where each alias points and where
it pointed before; it is replaced whole. `storage` does what must be safe, `remote` does it in an object
store.
"""

from pixelmill.pipeline.registry.aliases import AliasMoved, aliases_of, promote_version, rollback_alias
from pixelmill.pipeline.registry.model_version import DamagedVersion, ModelVersion
from pixelmill.pipeline.registry.pending import mark_judged, pending_versions
from pixelmill.pipeline.registry.versions import (
    fetch_bundle,
    find_bundle,
    find_version,
    list_models,
    register_bundle,
    registered_runs,
    release_version,
    reserve_version,
    show_model,
)

__all__ = [
    "AliasMoved",
    "DamagedVersion",
    "ModelVersion",
    "aliases_of",
    "fetch_bundle",
    "find_bundle",
    "find_version",
    "list_models",
    "mark_judged",
    "pending_versions",
    "promote_version",
    "register_bundle",
    "registered_runs",
    "release_version",
    "reserve_version",
    "rollback_alias",
    "show_model",
]
