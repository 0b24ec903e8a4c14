"""Requests to the API of a Prefect server, without importing Prefect."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from pixelmill.pipeline.errors import WorkError

_SECONDS = 10.0
_PAGE = 200
# With SQLite, the server responds with this status, and has changed nothing, if its database is locked.
_BUSY = 503
_PAUSES = (0.2, 0.5, 1.0, 2.0)


class ServerUnavailableError(WorkError):
    """The server does not respond, or responds with an error."""


@dataclass(frozen=True)
class ServerApi:
    """The API of a server.

    Attributes:
        url: Its address, such as `http://127.0.0.1:4200/api`.
        seconds: The time limit of a request.
    """

    url: str
    seconds: float = _SECONDS

    @property
    def page(self) -> str:
        """The address of the server's page."""
        return self.url.removesuffix("/").removesuffix("/api")

    def is_healthy(self) -> bool:
        """Whether the server responds."""
        try:
            return self.get("health") is True
        except ServerUnavailableError:
            return False

    def get(self, path: str) -> Any:
        """Request an object.

        Raises:
            ServerUnavailableError: The server does not respond, or responds with an error.
        """
        return self._request("GET", path, None)

    def post(self, path: str, **body: object) -> Any:
        """Send an object, such as a filter; returns the response.

        Raises:
            ServerUnavailableError: As for `get`.
        """
        return self._request("POST", path, body)

    def delete(self, path: str) -> None:
        """Remove an object; it may be gone already.

        Raises:
            ServerUnavailableError: As for `get`.
        """
        self._request("DELETE", path, None, may_be_missing=True)

    def find(self, path: str, **body: object) -> Any:
        """Request an object that need not exist; None if it does not.

        Raises:
            ServerUnavailableError: As for `get`.
        """
        return self._request("POST" if body else "GET", path, body or None, may_be_missing=True)

    def every(self, path: str, **body: object) -> list[Any]:
        """All results of a filter, however many pages they take.

        Raises:
            ServerUnavailableError: As for `get`.
        """
        found: list[Any] = []
        while True:
            page = self.post(path, **body, limit=_PAGE, offset=len(found))
            found += page
            if len(page) < _PAGE:
                return found

    def _request(self, method: str, path: str, body: object, may_be_missing: bool = False) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **_credentials()}
        # The address comes from this user's settings.
        request = urllib.request.Request(f"{self.url.rstrip('/')}/{path}", content, headers, method=method)  # noqa: S310
        for pause in (*_PAUSES, None):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as response:  # noqa: S310
                    content = response.read()
                    return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if error.code == 404 and may_be_missing:
                    return None
                if error.code != _BUSY or pause is None:
                    raise self._unavailable(f"status {error.code} {error.reason}") from error
                time.sleep(pause)
            except (OSError, HTTPException, ValueError) as error:
                trouble = str(getattr(error, "reason", error)) or type(error).__name__
                raise self._unavailable(trouble) from error
        return None

    def _unavailable(self, trouble: str) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"the Prefect server at {self.url} does not work ({trouble})",
            "a server that responds",
            "Start one with `pixelmill up`, or correct PREFECT_API_URL and PREFECT_API_AUTH_STRING.",
        )


def _credentials() -> dict[str, str]:
    secret = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if not secret:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
