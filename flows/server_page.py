"""Keeping the page of a Prefect server from other hosts.

Even with all analytics off, the page of Prefect 3.8 asks a host of its analytics provider for settings. No
setting of Prefect prevents that, but a content security policy in its HTML does: browsers then refuse every
request to another host.
"""

from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from pixelmill.pipeline.artifacts import write_text

_HEAD = "<head>"


def restrict_page(folder: Path, api_url: str) -> None:
    """Add a content security policy to the page.

    Args:
        folder: The folder of the page's files, PREFECT_SERVER_UI_STATIC_DIRECTORY, once the server has
            filled it.
        api_url: The address of the API for browsers.
    """
    host = urlsplit(api_url).netloc
    policy = (
        f"connect-src 'self' http://{host} ws://{host}; "
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
    for index in sorted(folder.glob("**/index.html")):
        text = index.read_text(encoding="utf-8")
        if meta not in text and _HEAD in text:
            write_text(index, text.replace(_HEAD, f"{_HEAD}\n    {meta}", 1))
