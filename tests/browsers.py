"""The browser for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright


def find_chromium() -> str | None:
    """The path of the system's Chromium, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """The system's Chromium, restricted to loopback."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        yield running
        running.close()
