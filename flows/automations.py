"""Pixelmill's automations on Prefect's server: alerts by its blocks, and what starts a retraining.

An alert is sent with each block called `pixelmill-alerts`: Slack, e-mail, or any webhook. Refusals, failures,
crashes and silence have a subject each, so that a person can route them differently.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pixelmill.flows.events import STARTS_RETRAINING, resource_of
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.recipes import load_recipe

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.events.schemas.automations import AutomationCore

ALERTS_BLOCK = "pixelmill-alerts"
_PREFIX = "pixelmill: "
_FLOWS = ("retrain", "score", "score-nightly", "watch")
_SUCCESSES = ("prefect.flow-run.Completed", "prefect.flow-run.Unchanged")
_HOURS_OF_SILENCE = 26.0
"""A nightly run, and two hours for it."""
_BODY = """{{ flow.name }}: {{ flow_run.name }}
{{ flow_run.state.message }}
{{ flow_run|ui_url }}"""


class _Alert(NamedTuple):
    """What an alert is sent for: its subject, and the names of the states of a flow run."""

    subject: str
    states: tuple[str, ...]


_ALERTS = (
    _Alert("a gate refused a result", ("Refused",)),
    _Alert("a run failed", ("Failed", "TimedOut")),
    _Alert("a run crashed", ("Crashed",)),
)


def apply_automations(hours_of_silence: float = _HOURS_OF_SILENCE) -> list[str]:
    """Create or update pixelmill's automations on the server, by name; remove those that no longer apply.

    An automation that somebody switched off stays off.

    Args:
        hours_of_silence: After how many hours without a success of a scheduled deployment to tell.

    Returns:
        A line for each automation, and for each that cannot be created.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployments = _deployments(client)
        blocks = _notification_blocks(client)
        lines = []
        wanted = [*_alerts(blocks), *_silences(blocks, deployments, hours_of_silence)]
        if not blocks:
            lines.append(
                f"no alerts: create a notification block called {ALERTS_BLOCK} in Prefect, then apply again"
            )
        for deployment in deployments:
            if deployment["flow_name"] == "retrain":
                try:
                    wanted.append(_trigger(deployment))
                except PixelmillError as error:
                    lines.append(f"no trigger for {_name(deployment)}: {error}")
        return [*lines, *_apply(client, wanted)]


def _apply(client: Any, wanted: list["AutomationCore"]) -> list[str]:
    known: dict[str, Any] = {}
    for found in client.read_automations():
        if found.name in known:
            client.delete_automation(
                found.id
            )  # Names are not unique: two programs may have created it at once.
        elif found.name.startswith(_PREFIX):
            known[found.name] = found
    lines = []
    for automation in wanted:
        found = known.pop(automation.name, None)
        if found is None:
            client.create_automation(automation)
        else:
            automation.enabled = found.enabled
            client.update_automation(found.id, automation)
        lines.append(f"{'created' if found is None else 'updated'} {automation.name!r}")
    for found in known.values():
        client.delete_automation(found.id)
        lines.append(f"removed {found.name!r}")
    return lines


def _alerts(blocks: list["UUID"]) -> Iterator["AutomationCore"]:
    from prefect.events import EventTrigger
    from prefect.events.schemas.automations import AutomationCore, Posture

    for alert in _ALERTS if blocks else ():
        trigger = EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in alert.states},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": list(_FLOWS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        )
        yield AutomationCore(
            name=f"{_PREFIX}{alert.subject}",
            description=f"A run of pixelmill ended as {' or '.join(alert.states)}.",
            trigger=trigger,
            actions=_notifications(blocks, f"pixelmill: {alert.subject}", _BODY),
        )


def _silences(
    blocks: list["UUID"], deployments: list[dict[str, Any]], hours: float
) -> Iterator["AutomationCore"]:
    from prefect.events import EventTrigger
    from prefect.events.schemas.automations import AutomationCore, Posture

    for deployment in deployments if blocks else ():
        if not any(schedule["active"] for schedule in deployment["schedules"]):
            continue
        silence = f"no success of {_name(deployment)} for {hours:g} h"
        trigger = EventTrigger(
            expect=set(_SUCCESSES),
            match_related={"prefect.resource.id": f"prefect.deployment.{deployment['id']}"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(hours=hours),
        )
        body = f"{silence}: look at its last runs, and whether server and worker are alive."
        yield AutomationCore(
            name=f"{_PREFIX}{silence}",
            description="Tells of a schedule that nobody else would miss.",
            trigger=trigger,
            actions=_notifications(blocks, f"pixelmill: {silence}", body),
        )


def _trigger(deployment: dict[str, Any]) -> "AutomationCore":
    from prefect.events import EventTrigger
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, Posture

    given = deployment["parameters"]
    model = load_recipe(given.get("recipe", ""), tuple(given.get("overrides") or ())).name
    trigger = EventTrigger(
        expect={event.value for event in STARTS_RETRAINING},
        match={"prefect.resource.id": resource_of(model)},
        posture=Posture.Reactive,
        threshold=1,
    )
    return AutomationCore(
        name=f"{_PREFIX}start {_name(deployment)}",
        description=f"Drift, new images or new corrections of {model} start a retraining.",
        trigger=trigger,
        actions=[RunDeployment(source="selected", deployment_id=deployment["id"])],
    )


def _notifications(blocks: list["UUID"], subject: str, body: str) -> list[Any]:
    from prefect.events.actions import SendNotification

    return [SendNotification(block_document_id=block, subject=subject, body=body) for block in blocks]


def _deployments(client: Any) -> list[dict[str, Any]]:
    """The deployments of pixelmill's flows, each with the name of its flow."""
    flows = client.request("POST", "/flows/filter", json={"flows": {"name": {"any_": list(_FLOWS)}}}).json()
    names = {flow["id"]: flow["name"] for flow in flows}
    found = client.request("POST", "/deployments/filter", json={}).json()
    return [
        {**deployment, "flow_name": names[deployment["flow_id"]]}
        for deployment in found
        if deployment["flow_id"] in names
    ]


def _notification_blocks(client: Any) -> list["UUID"]:
    wanted = {"block_documents": {"is_anonymous": {"eq_": False}, "name": {"any_": [ALERTS_BLOCK]}}}
    return [found["id"] for found in client.request("POST", "/block_documents/filter", json=wanted).json()]


def _name(deployment: dict[str, Any]) -> str:
    return f"{deployment['flow_name']}/{deployment['name']}"
