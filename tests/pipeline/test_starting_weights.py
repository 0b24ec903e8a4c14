"""Weights from a URL: verified, kept, and refused in one line."""

import hashlib
import socket
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.errors import DownloadError, RequestError
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.starting_weights import find_pretrained_weights, find_starting_weights
from tests.servers import FileServer, serving

CONTENT = np.random.default_rng(0).bytes(10_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_from_a_url_is_verified_and_kept(tmp_path: Path) -> None:
    with serving(FileServer({"net.h5": CONTENT, "net.keras": CONTENT})) as server:
        recipe = load_recipe(
            "photos",
            [
                "dataset.path=images",
                f"model.layers.0.weights={server.url}net.h5#sha256={SHA256.upper()}",
                f"training.weights={server.url}net.keras#sha256={SHA256}",
            ],
        )
        found = find_pretrained_weights(recipe, tmp_path)
        assert found is not None
        assert (found.path, found.sha256) == (tmp_path / "downloads" / SHA256, SHA256)
        assert found.path.read_bytes() == CONTENT
        start = find_starting_weights(recipe, tmp_path)
        assert start is not None
        assert start.path == found.path
        assert [name for name, _ in server.requests] == ["net.h5"]
        found.path.write_bytes(b"damaged")
        find_pretrained_weights(recipe, tmp_path)
        assert found.path.read_bytes() == CONTENT


def test_another_content_is_refused(tmp_path: Path) -> None:
    with serving(FileServer({"net.h5": b"another"})) as server:
        recipe = load_recipe(
            "photos", ["dataset.path=images", f"model.layers.0.weights={server.url}net.h5#sha256={SHA256}"]
        )
        with pytest.raises(RequestError, match="as the recipe says"):
            find_pretrained_weights(recipe, tmp_path)
    assert not (tmp_path / "downloads" / SHA256).exists()


def test_a_server_out_of_reach_is_a_failed_download(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.h5"
    recipe = load_recipe("photos", ["dataset.path=images", f"model.layers.0.weights={url}#sha256={SHA256}"])
    with pytest.raises(DownloadError, match="or name the path of a file"):
        find_pretrained_weights(recipe, tmp_path)


@pytest.mark.parametrize("key", ["model.layers.0.weights", "training.weights"])
def test_a_url_needs_a_hash(key: str) -> None:
    with pytest.raises(RequestError, match="sha256"):
        load_recipe("photos", ["dataset.path=images", f"{key}=https://example.org/net.h5"])


def test_a_file_and_imagenet(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(CONTENT)
    recipe = load_recipe("photos", ["dataset.path=images", f"model.layers.0.weights={path}"])
    found = find_pretrained_weights(recipe, tmp_path)
    assert found is not None
    assert (found.path, found.sha256) == (path, SHA256)
    assert find_pretrained_weights(load_recipe("photos", ["dataset.path=images"]), tmp_path) is None
