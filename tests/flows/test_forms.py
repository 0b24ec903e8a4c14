"""Prefect's page starts and changes every deployment: its forms, in Chromium."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.flows.conftest import PrefectServer, ask

ROOT = Path(__file__).resolve().parents[2]
MILLISECONDS = 120_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("prefect-server"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def deployments(server: PrefectServer) -> dict[str, Any]:
    """The built-in deployments, on the server of the session."""
    environment = {**os.environ, **server.environment}
    prefect = [sys.executable, "-m", "prefect"]
    create = [*prefect, "work-pool", "create", "pixelmill", "--type", "process"]
    subprocess.run(create, env=environment, capture_output=True, check=False)
    deploy = [*prefect, "--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml"]
    subprocess.run(deploy, cwd=ROOT, env=environment, capture_output=True, check=True)
    names = ("nightly", "nightly-scores", "watch", "score")
    found = ask(server, "deployments/filter", deployments={"name": {"any_": list(names)}})
    assert {deployment["name"] for deployment in found} == set(names)
    return {deployment["name"]: deployment for deployment in found}


def press(page: Page, button: str, path: str) -> int:
    """Press the last button of the form until the server has answered; returns the status of its answer."""
    deadline = time.monotonic() + MILLISECONDS / 1000
    while True:
        with page.expect_response(
            lambda answer: path in answer.url and answer.request.method in ("POST", "PATCH"),
            timeout=MILLISECONDS,
        ) as got:
            page.get_by_role("button", name=button).click()
        if got.value.status != 503 or time.monotonic() > deadline:  # The database is locked for a moment.
            return got.value.status


@pytest.mark.parametrize("name", ["nightly", "nightly-scores", "watch", "score"])
@pytest.mark.parametrize("edition", ["", "/v2"])
def test_a_form_starts_and_saves_a_deployment(
    server: PrefectServer, deployments: dict[str, Any], browser: Browser, name: str, edition: str
) -> None:
    number = deployments[name]["id"]
    page = browser.new_page(viewport={"width": 1280, "height": 1150})
    page.set_default_timeout(MILLISECONDS)
    page.goto(f"{server.url}{edition}/deployments/deployment/{number}/run")
    page.get_by_role("button", name="Submit").wait_for()
    page.get_by_text("The folder or address of the artifacts root.").first.wait_for()
    if name == "nightly":
        # The form fits a screen: its last parameter is visible without scrolling.
        box = page.get_by_text("max_hours", exact=False).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 1150
        if "PIXELMILL_SCREENSHOTS" in os.environ and edition:
            page.screenshot(path=f"{os.environ['PIXELMILL_SCREENSHOTS']}/prefect-form.png")
    assert press(page, "Submit", f"/deployments/{number}/create_flow_run") == 201
    page.goto(f"{server.url}{edition}/deployments/deployment/{number}/edit")
    page.get_by_role("button", name="Save").wait_for()
    page.get_by_text("The folder or address of the artifacts root.").first.wait_for()
    assert press(page, "Save", f"/deployments/{number}") == 204
    page.close()
    (saved,) = ask(server, "deployments/filter", deployments={"name": {"any_": [name]}})
    for parameter, value in deployments[name]["parameters"].items():
        assert saved["parameters"][parameter] == value
