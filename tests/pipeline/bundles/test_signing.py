"""Signatures: valid for exactly what was signed, with exactly that key."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pixelmill.pipeline.artifacts import MANIFEST, SIGNATURE, read_json, write_json
from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.bundles.engines import EngineName
from pixelmill.pipeline.bundles.signing import require_signature, require_signing_key, sign_bundle
from pixelmill.pipeline.bundles.verification import verify_bundle
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.requests import ExportRequest, export_on_request
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import Run, update_manifest, write_images
from tests.s3 import s3_server


def write_keys(folder: Path, name: str = "key", password: bytes | None = None) -> tuple[Path, Path]:
    """A private and a public key, as `openssl` writes them."""
    private = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    (folder / f"{name}.pem").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption)
    )
    (folder / f"{name}.pub").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / f"{name}.pem", folder / f"{name}.pub"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path)


@pytest.fixture
def signed(bundle: ModelBundle, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "signed"
    export_on_request(
        ExportRequest(output=folder, store=tmp_path / "store", model=str(bundle.folder), sign=keys[0])
    )
    return folder


def test_a_signed_bundle_is_the_same_bundle_with_a_signature(
    signed: Path, keys: tuple[Path, Path], bundle: ModelBundle, tmp_path: Path
) -> None:
    require_signature(signed, keys[1])
    assert (signed / MANIFEST).read_bytes() == (bundle.folder / MANIFEST).read_bytes()
    assert not (bundle.folder / SIGNATURE).exists()
    found = verify_bundle(open_bundle(signed), [EngineName.ONNXRUNTIME])
    assert (found.signature, found.agrees) == ("not checked", True)
    assert verify_bundle(open_bundle(signed), [EngineName.ONNXRUNTIME], key=keys[1]).signature == "valid"
    write_images(tmp_path / "images", 3)
    request = ScoringRequest(open_bundle(signed), tmp_path / "images", tmp_path / "out")
    assert list(read_predictions(score_folder(request).folder)["status"]) == ["scored"] * 3
    # Exported once more, without changes, it stays signed, and under any folder name.
    export_on_request(ExportRequest(output=tmp_path / "on", store=tmp_path / "store", model=str(signed)))
    require_signature(tmp_path / "on", keys[1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_two(folder: Path) -> None:
    flip(folder / "README.md")
    (folder / "recipe.yaml").unlink()


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (lambda folder: flip(folder / "model.onnx"), r"\(changed: model\.onnx\)"),
    "the manifest": (lambda folder: flip(folder / MANIFEST), r"\(changed: manifest\.json\)"),
    "two files": (
        change_two,
        r"\(changed: README\.md; removed: recipe\.yaml\)",
    ),
    "an added file": (
        lambda folder: (folder / "golden/more.png").write_bytes(b""),
        r"\(added: golden/more\.png\)",
    ),
    "an added file of git": (
        lambda folder: (folder / ".gitignore").write_text("*"),
        r"\(added: \.gitignore\)",
    ),
    "a link": (
        lambda folder: (folder / "link").symlink_to(folder / "README.md"),
        r"cannot be checked \(ValueError: Cannot use .*link",
    ),
    "the signed text": (
        lambda folder: change_envelope(folder, "payload"),
        r"whose model\.sig was changed after it was made",
    ),
    "an empty signature": (
        lambda folder: (folder / SIGNATURE).write_text(""),
        r"whose model\.sig cannot be checked \(JSONDecodeError",
    ),
    "another signature": (
        lambda folder: (folder / SIGNATURE).write_text("{}"),
        r"whose model\.sig cannot be checked",
    ),
    "no signature": (lambda folder: (folder / SIGNATURE).unlink(), r"is not signed: it has no model\.sig"),
    "a pipe": (
        lambda folder: replace_by_pipe(folder / SIGNATURE),
        r"is not signed: it has no model\.sig",
    ),
}


def change_envelope(folder: Path, name: str) -> None:
    signature = read_json(folder / SIGNATURE)
    value = signature["dsseEnvelope"][name]
    signature["dsseEnvelope"][name] = ("A" if value[40] != "A" else "B").join((value[:40], value[41:]))
    write_json(folder / SIGNATURE, signature)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_refused_in_one_line(signed: Path, keys: tuple[Path, Path], name: str) -> None:
    change, words = CHANGES[name]
    change(signed)
    with pytest.raises(GateRefused, match=words) as refused:
        require_signature(signed, keys[1])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_forged_bundle_with_a_matching_manifest_is_refused(
    run: Run, signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    metrics = read_json(signed / "metrics.json")
    metrics["test"]["accuracy"] = 1.0
    write_json(signed / "metrics.json", metrics)
    update_manifest(signed)
    assert run("verify", signed, "--engine", "onnxruntime").code == 0
    result = run("verify", signed, "--engine", "onnxruntime", "--key", keys[1])
    assert result.code == 3
    (line,) = result.errors.splitlines()
    assert "(changed: manifest.json, metrics.json)" in line
    _, other = write_keys(tmp_path, "other")
    result = run("verify", signed, "--key", other)
    assert result.code == 3
    assert "which was signed with another key" in result.last_error
    # Whoever has another key can sign it, but not for this one.
    sign_bundle(signed, tmp_path / "other.pem")
    assert run("verify", signed, "--engine", "onnxruntime", "--key", other).code == 0
    assert run("verify", signed, "--key", keys[1]).code == 3


def test_the_commands_say_what_is_known_of_the_signature(
    run: Run, bundle: ModelBundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run("export", bundle.folder, "--sign", keys[0], "--output", tmp_path / "out")
    assert result.code == 0, result.errors
    assert f"signed   {tmp_path / 'out'}/model.sig" in result.output
    engine = ("--engine", "onnxruntime")
    unchecked = run("verify", tmp_path / "out", *engine)
    assert "There is a signature, which was not checked: that needs --key." in unchecked.output
    checked = run("verify", tmp_path / "out", *engine, "--key", keys[1], "--json")
    assert checked.json["signature"] == "valid"
    assert "There is no signature." in run("verify", bundle.folder, *engine).output
    unsigned = run("verify", bundle.folder, *engine, "--key", keys[1])
    assert unsigned.code == 3
    assert "is not signed" in unsigned.last_error


@pytest.mark.parametrize("kind", ["missing", "text", "rsa", "public", "curve", "encrypted", "not encrypted"])
def test_a_key_that_cannot_sign_is_refused_before_anything_is_written(
    bundle: ModelBundle, keys: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    key = tmp_path / "wrong.pem"
    if kind == "text":
        key.write_text("a key")
    elif kind in ("rsa", "curve"):
        private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            rsa.generate_private_key(65537, 2048)
            if kind == "rsa"
            else ec.generate_private_key(ec.SECP256K1())
        )
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    elif kind == "public":
        key = keys[1]
    elif kind == "encrypted":
        key, _ = write_keys(tmp_path, "locked", b"secret")
    elif kind == "not encrypted":
        key = keys[0]
    password = "secret" if kind == "not encrypted" else None
    request = ExportRequest(
        output=tmp_path / "out",
        store=tmp_path / "store",
        model=str(bundle.folder),
        sign=key,
        sign_password=password,
    )
    assert "secret" not in repr(request)
    with pytest.raises(RequestError, match=f"{key}") as refused:
        export_on_request(request)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_encrypted_key_needs_its_password(bundle: ModelBundle, run: Run, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "locked", b"secret")
    require_signing_key(private, "secret")
    with pytest.raises(RequestError, match="Incorrect password"):
        require_signing_key(private, "wrong")
    command = ("export", bundle.folder, "--sign", private, "--output", tmp_path / "out")
    assert "Set PIXELMILL_SIGN_PASSWORD" in run(*command).last_error
    result = run(*command, env={"PIXELMILL_SIGN_PASSWORD": "secret"})
    assert result.code == 0, result.errors
    require_signature(tmp_path / "out", public)


def test_without_the_extra_one_line_names_it(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (partial(require_signature, signed, keys[1]), partial(require_signing_key, keys[0], None)):
        with pytest.raises(RequestError, match=r"pip install .*\[signing\]"):
            call()


def test_a_changed_bundle_loses_its_signature(
    signed: Path, keys: tuple[Path, Path], node_modules: Path, tmp_path: Path
) -> None:
    export_on_request(
        ExportRequest(
            output=tmp_path / "web",
            store=tmp_path / "store",
            model=str(signed),
            web=True,
            web_runtime=node_modules / "onnxruntime-web",
        )
    )
    assert not (tmp_path / "web" / SIGNATURE).exists()


def test_a_remote_bundle_is_fetched_with_its_signature(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as s3, s3.bucket("bucket"):
        for name, value in {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        from pixelmill.pipeline.storage import parse_location

        target = parse_location("s3://bucket/out")
        export_on_request(ExportRequest(output=target, store=tmp_path / "store", model=str(signed)))
        require_signature(find_bundle(tmp_path / "store", "s3://bucket/out").folder, keys[1])
        # The same bundle, signed by somebody else, is another bundle.
        shutil.copytree(signed, tmp_path / "again")
        private, public = write_keys(tmp_path, "other")
        sign_bundle(tmp_path / "again", private)
        (target / SIGNATURE).write_bytes((tmp_path / "again" / SIGNATURE).read_bytes())
        require_signature(find_bundle(tmp_path / "store", "s3://bucket/out").folder, public)


def test_the_signature_is_of_the_common_format(signed: Path) -> None:
    signature = json.loads((signed / SIGNATURE).read_text())
    assert signature["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert signature["verificationMaterial"]["tlogEntries"] == []
