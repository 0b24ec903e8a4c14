"""The watching flow: enough new images or corrections start a retraining, through an event of Prefect.

Drift is told by the nightly scoring. The automations of `pixelmill.flows.automations` listen to these events;
while a retraining is at work, what they start is skipped, kept, and made up for by one run afterwards.
"""

from prefect import flow, get_run_logger

from pixelmill.flows.events import ModelEvent, tell
from pixelmill.flows.refusals import refusal_as_state
from pixelmill.flows.supervision import supervised
from pixelmill.pipeline.arrivals import Arrivals, look_for_arrivals, remember
from pixelmill.pipeline.storage import parse_location, workspace


@flow(name="watch", flow_run_name="watch {images} for {model}", validate_parameters=True)
@refusal_as_state
@supervised
def watch(
    model: str,
    images: str = "",
    min_images: int = 100,
    quiet_minutes: float = 10.0,
    corrections: str = "",
    min_corrections: int = 50,
    store: str = "artifacts",
) -> list[str]:
    """Look for new images and corrections; enough of them start a retraining of the model.

    Args:
        model: The name of the model, as in the recipe.
        images: The folder or address of its images; empty to watch only the corrections.
        min_images: The number of new images that starts a retraining.
        quiet_minutes: For how long no image must have arrived, so that a copy in progress is complete.
        corrections: The file of corrections of the recipe; empty to watch only the images.
        min_corrections: The number of new corrections that starts a retraining.
        store: The folder or address of the artifacts root.
    """
    work = workspace(parse_location(store))
    found = look_for_arrivals(work, model, images, corrections)
    log = get_run_logger()
    if found is None:
        log.info("the first look: what arrives from now on is new")
        return []
    log.info("%d new images, the last %.0f minutes ago; %d new corrections", *_facts(found))
    events = []
    if found.images >= max(min_images, 1) and found.quiet_minutes >= quiet_minutes:
        events.append(ModelEvent.IMAGES)
        tell(ModelEvent.IMAGES, model, images=found.images)
    if found.corrections >= max(min_corrections, 1):
        events.append(ModelEvent.CORRECTIONS)
        tell(ModelEvent.CORRECTIONS, model, corrections=found.corrections)
    if events:
        remember(work, model, found.seen)
    return [event.value for event in events]


def _facts(found: Arrivals) -> tuple[int, float, int]:
    return found.images, found.quiet_minutes, found.corrections
