"""Judging every version that waits for it: those of runs that were killed, then the new one."""

from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused, PixelmillError
from pixelmill.pipeline.promotion import Promotion, promote_bundle
from pixelmill.pipeline.registry import aliases_of, find_bundle, mark_judged, pending_versions

_log = getLogger(__name__)


def judge_versions(store: Path, bundle: ModelBundle, promotion: PromotionSpec) -> Promotion:
    """Promote a new version if it is good enough, after those that killed runs registered before it.

    Each is judged in the order of its number, by the same rule. Of those before, one that the alias has
    passed already is not gone back to, and one that is refused or damaged is only reported.

    Args:
        store: The artifacts root.
        bundle: The new version, registered.
        promotion: The rule, and the alias to move.

    Raises:
        GateRefused: The new version is not good enough.
    """
    for version in pending_versions(store, bundle.name):
        if version < bundle.version:
            _judge_earlier(store, bundle.name, version, promotion)
    try:
        return promote_bundle(store, bundle, promotion)
    except GateRefused:
        mark_judged(store, bundle.name, bundle.version)
        raise


def _judge_earlier(store: Path, name: str, version: int, promotion: PromotionSpec) -> None:
    reference = f"{name}@{version}"
    current = aliases_of(store, name).get(promotion.alias, 0)
    if current > version:
        _log.info("%s was never judged, and %s is past it", reference, promotion.alias)
    else:
        _log.info("%s was registered by a run that was killed, and is judged now", reference)
        try:
            promote_bundle(store, find_bundle(store, reference), promotion)
            _log.info("%s@%s is version %d", name, promotion.alias, version)
        except PixelmillError as error:
            _log.warning("%s is not promoted: %s", reference, error)
    mark_judged(store, name, version)
