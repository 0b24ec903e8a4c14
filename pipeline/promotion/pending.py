"""Judging all pending versions: first those registered by interrupted runs, then the new one."""

from logging import getLogger

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused, PixelmillError
from pixelmill.pipeline.promotion import Promotion, TestImages, promote_bundle
from pixelmill.pipeline.registry import aliases_of, find_bundle, mark_judged, pending_versions
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


def judge_versions(
    store: Location, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages
) -> Promotion:
    """Promote a new version if it passes the gate, after the earlier versions of interrupted runs.

    Versions are judged in order, by the same bars on the same test images. An earlier version is skipped if
    the alias already points to a later one, and only logged if it is refused or damaged.

    Args:
        store: The artifacts root.
        bundle: The new version, registered.
        promotion: The bars, and the alias to move.
        test: The test images of the run.

    Raises:
        VersionRefused: The new version does not pass the gate.
    """
    for version in pending_versions(store, bundle.name):
        if version < bundle.version:
            _judge_earlier(store, bundle.name, version, promotion, test)
    try:
        return promote_bundle(store, bundle, promotion, test)
    except GateRefused:
        mark_judged(store, bundle.name, bundle.version)
        raise


def _judge_earlier(
    store: Location, name: str, version: int, promotion: PromotionSpec, test: TestImages
) -> None:
    reference = f"{name}@{version}"
    current = aliases_of(store, name).get(promotion.alias, 0)
    if current > version:
        _log.info("%s is skipped: %s already points to a later version", reference, promotion.alias)
    else:
        _log.info("judging %s, which was registered by an interrupted run", reference)
        try:
            promote_bundle(store, find_bundle(store, reference), promotion, test)
            _log.info("%s@%s is version %d", name, promotion.alias, version)
        except PixelmillError as error:
            _log.warning("%s is not promoted: %s", reference, error)
    mark_judged(store, name, version)
