"""An S3 server on loopback that can simulate failures."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "a-user", "a-secret"
_REFUSAL = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist</Message></Error>"
_ERRORS = {
    "500 Internal Server Error": b"<Error><Code>InternalError</Code><Message>Try again</Message></Error>",
    "503 Service Unavailable": b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>",
}
Answer = Iterable[bytes]
StartResponse = Callable[..., Any]


@dataclass
class S3Server:
    """A running server.

    Attributes:
        url: Its address.
        client: A boto3 client, whose requests never fail.
        failing: The share of requests that fail in one of several ways.
        first_fails: Whether the first attempt of each request fails.
        chance: The random number generator that selects them.
        requests: The method, the path with its query, and whether it failed, of each request.
        before: Called with the method and path of each request before the response.
    """

    url: str = ""
    client: Any = None
    failing: float = 0.0
    first_fails: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    requests: list[tuple[str, str, bool]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda method, path: None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for using the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextmanager
    def bucket(self, name: str) -> Iterator[None]:
        """Create an empty bucket for the block, and reset the server."""
        self.client.create_bucket(Bucket=name)
        self.behave()
        try:
            yield
        finally:
            for key in self.keys(name):
                self.client.delete_object(Bucket=name, Key=key)
            self.client.delete_bucket(Bucket=name)

    def behave(self) -> None:
        """Reset all settings, but keep the objects."""
        self.failing, self.first_fails, self.before = 0.0, False, lambda method, path: None
        self.chance.seed(0)
        self.requests.clear()

    @property
    def failed(self) -> int:
        """The number of failed requests."""
        return sum(failed for _, _, failed in self.requests)

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Upload the files below a folder into a bucket."""
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def download(self, bucket: str, prefix: str, folder: Path) -> Path:
        """Write the objects below a prefix as files."""
        for key in self.keys(bucket, prefix):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        return folder

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys below a prefix, or all, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix and f"{prefix}/"
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _body(method: str, content: bytes) -> Answer:
    # A client treats a body in the response to HEAD as a broken connection.
    return [] if method == "HEAD" else [content]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server on a free port of 127.0.0.1 during the block."""
    state = S3Server()
    moto = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def answer(environ: dict[str, Any], start: StartResponse) -> Answer:
        """Process the request, and return the complete response at once."""
        # moto checks and then writes; S3 does both atomically.
        if environ["REQUEST_METHOD"] == "PUT":
            with one_at_a_time:
                return list(moto(environ, start))
        return list(moto(environ, start))

    def front(environ: dict[str, Any], start: StartResponse) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        requested = f"{path}?{environ['QUERY_STRING']}"
        if "test-setup" in environ.get("HTTP_USER_AGENT", ""):
            return answer(environ, start)
        state.before(method, path)
        fails = state.chance.random() < state.failing
        fails |= state.first_fails and (method, requested, True) not in state.requests
        state.requests.append((method, requested, fails))
        if f"Credential={KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return _body(method, _REFUSAL)
        if not fails:
            return answer(environ, start)
        kind = state.chance.choice([*_ERRORS, "dropped", "done and dropped", "broken off"])
        if kind in _ERRORS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(kind, [("Content-Type", "application/xml")])
            return _body(method, _ERRORS[kind])
        if kind == "dropped":
            raise ConnectionResetError
        if kind == "done and dropped":
            answer(environ, lambda *_: None)
            raise ConnectionResetError
        content = b"".join(answer(environ, start))
        return _broken_off(content)

    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=_QuietHandler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.client = boto3.client(
        "s3",
        endpoint_url=state.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=boto3.session.Config(user_agent_extra="test-setup"),
    )
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _broken_off(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    raise ConnectionResetError


class _QuietHandler(MotoRequestHandler):
    def connection_dropped(self, error: BaseException, environ: dict[str, Any] | None = None) -> None:
        self.close_connection = True

    def log(self, *_: object, **__: object) -> None:
        pass
