"""The events by which pixelmill tells Prefect's automations what happened to a model."""

from enum import StrEnum
from typing import Any

from pixelmill.flows.page import start_in_background, wait_for


class ModelEvent(StrEnum):
    """What happened."""

    DRIFT = "pixelmill.drift.exceeded"
    FAILURES = "pixelmill.failures.exceeded"
    IMAGES = "pixelmill.images.arrived"
    CORRECTIONS = "pixelmill.corrections.arrived"


STARTS_RETRAINING = (ModelEvent.DRIFT, ModelEvent.IMAGES, ModelEvent.CORRECTIONS)


def resource_of(model: str) -> str:
    """The identifier of a model among the resources of Prefect's events."""
    return f"pixelmill.model.{model}"


def tell(event: ModelEvent, model: str, **facts: object) -> None:
    """Send an event, if the server accepts it.

    Args:
        event: What happened.
        model: The name of the model.
        facts: Numbers and short texts that belong to it.
    """
    wait_for(start_in_background(lambda: _send(event, model, facts)))


def _send(event: ModelEvent, model: str, facts: dict[str, object]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.events import Event, Resource

    resource = Resource({"prefect.resource.id": resource_of(model), "prefect.resource.name": model})
    happened = Event(event=event.value, resource=resource, payload=facts)
    # Not through Prefect's thread for events, which says nothing about an event that it could not send.
    with get_client(sync_client=True) as client:
        send: Any = client.request
        send("POST", "/events", json=[happened.model_dump(mode="json")]).raise_for_status()
