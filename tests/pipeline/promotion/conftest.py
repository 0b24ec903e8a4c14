"""A store in an object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import S3Server, s3_server


@pytest.fixture(scope="package")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3_store(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty store."""
    for name, value in {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "s3-cache")}.items():
        monkeypatch.setenv(name, value)
    with s3.bucket("bucket"):
        yield "s3://bucket/store"
