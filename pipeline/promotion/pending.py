"""Judging the pending versions, which were registered by interrupted runs, before a new one."""

from logging import getLogger

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.promotion import TestImages, promote_bundle
from pixelmill.pipeline.registry import aliases_of, find_bundle, mark_judged, pending_versions
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


def judge_pending(store: Location, new: ModelBundle, promotion: PromotionSpec, test: TestImages) -> None:
    """Promote each earlier version that was never judged, if it passes the gate.

    Versions are judged in order, by the bars and on the test images of the new one. One is skipped if the
    alias already points to a later version, and only logged if it is refused or damaged.

    Args:
        store: The artifacts root.
        new: The new version.
        promotion: The bars, and the alias to move.
        test: The test images of the run.
    """
    for version in pending_versions(store, new.name):
        if version < new.version:
            _judge_earlier(store, new.name, version, promotion, test)


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
