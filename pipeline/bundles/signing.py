"""Signing a bundle with a private key, and checking the signature, in the format of OpenSSF Model Signing.

`model.sig` covers every other file of the folder, `manifest.json` included, so that a changed, added or
removed byte is noticed. A pair of keys is enough: nothing here contacts another machine.
"""

import contextlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.artifacts import SIGNATURE, flush_to_disk, read_content, scratch_folder
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.extras import install_command

if TYPE_CHECKING:
    import model_signing

_LARGEST_KEY, _LARGEST_SIGNATURE = 2**20, 64 * 2**20
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_A_PRIVATE_KEY = "a private key of the curve prime256v1, secp384r1 or secp521r1 in PEM"
_A_PUBLIC_KEY = "a public key of the curve prime256v1, secp384r1 or secp521r1 in PEM"
_MAKE_A_KEY = "Make one: openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem."
_MAKE_PUBLIC = "Extract it: openssl ec -in signing-key.pem -pubout -out signing-key.pub."
_GET_AGAIN = "Do not use this bundle: get it from its source again, and ask there which key signs it."
_MAX_NAMED = 3
# How the library words the files that differ, in a list of Python strings.
_DIFFERENCES = (
    ("changed", re.compile(r"Hash mismatch for \\?'(.+?)\\?': Expected")),
    ("added", re.compile(r"Extra files found in model '.*?': (.+?)[\"'](?:, [\"']|\])")),
    ("removed", re.compile(r"Missing files in model '.*?': (.+?)[\"'](?:, [\"']|\])")),
)


def is_signed(folder: Path) -> bool:
    """Whether a bundle carries a signature, whoever it is from."""
    return (folder / SIGNATURE).is_file()


def require_signing_key(key: Path, password: str | None) -> None:
    """Check that a file is a private key that can sign.

    Raises:
        RequestError: It is missing, no such key, or encrypted with another password; or the extra `signing`
            is not installed.
    """
    _require_extra()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(key, "sign", _A_PRIVATE_KEY, _MAKE_A_KEY)
    try:
        private = load_pem_private_key(content, password.encode() if password else None)
    except TypeError as error:  # A password without encryption, or encryption without a password.
        encrypted = password is None
        raise RequestError(
            f"key {key}, which is {'' if encrypted else 'not '}encrypted, with"
            f"{'out' if encrypted else ''} a password",
            "the password of an encrypted key, and none for another",
            "Set PIXELMILL_SIGN_PASSWORD." if encrypted else "Unset PIXELMILL_SIGN_PASSWORD.",
        ) from error
    except Exception as error:  # The exceptions of the library have no common base class.
        raise _no_key(f"key {key} ({_first_words(error)})", _A_PRIVATE_KEY, _MAKE_A_KEY) from error
    _require_curve(key, private, _A_PRIVATE_KEY, _MAKE_A_KEY)


def sign_bundle(folder: Path, key: Path, password: str | None = None) -> None:
    """Write the signature of a finished bundle beside its other files.

    Args:
        folder: The bundle, whose files are not changed afterwards; an earlier signature is replaced.
        key: The private key, in PEM.
        password: The password of an encrypted key.

    Raises:
        RequestError: As `require_signing_key`.
    """
    require_signing_key(key, password)
    from model_signing import signing

    # The library passes the password on to a function that takes bytes.
    secret: Any = password.encode() if password else None
    config = signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
    config.set_hashing_config(_every_file()).sign(folder, folder / SIGNATURE)
    flush_to_disk(folder / SIGNATURE)


def require_signature(folder: Path, key: Path) -> None:
    """Check that a bundle is exactly what the owner of a key signed.

    Args:
        folder: The bundle.
        key: The public key, in PEM.

    Raises:
        RequestError: The file is missing or no such key, or the extra `signing` is not installed.
        GateRefused: There is no signature, it was made with another key, or a file was changed, added or
            removed.
    """
    _require_extra()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from model_signing import verifying

    content = _read_key(key, "key", _A_PUBLIC_KEY, _MAKE_PUBLIC)
    try:
        public = load_pem_public_key(content)
    except Exception as error:  # The exceptions of the library have no common base class.
        raise _no_key(f"key {key} ({_first_words(error)})", _A_PUBLIC_KEY, _MAKE_PUBLIC) from error
    _require_curve(key, public, _A_PUBLIC_KEY, _MAKE_PUBLIC)
    if not is_signed(folder):
        raise GateRefused(
            f"{folder}, which is not signed: it has no {SIGNATURE}",
            f"a bundle signed with the key of {key}",
            "Get the signed bundle from its source, or sign it with `pixelmill export`.",
        )
    with scratch_folder("signature") as work, contextlib.redirect_stdout(sys.stderr):
        # Read with a limit, and from a regular file: anybody may have written it.
        (work / SIGNATURE).write_bytes(_read_signature(folder))
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        try:
            config.set_hashing_config(_every_file()).verify(folder.resolve(), work / SIGNATURE)
        except InvalidSignature as error:
            raise _refused(f"{folder}, whose {SIGNATURE} was changed after it was made", key) from error
        except Exception as error:  # A malformed signature raises errors of many types.
            raise _refused(_describe(folder, key, error), key) from error


def _every_file() -> "model_signing.hashing.Config":
    """Hash every file but the signature; the library would leave out those of git."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _describe(folder: Path, key: Path, error: Exception) -> str:
    """What is wrong with a signature, in a few words."""
    words = str(error)
    if words.startswith("Key mismatch"):
        return f"{folder}, which was signed with another key than that of {key}"
    found = {kind: pattern.findall(words) for kind, pattern in _DIFFERENCES}
    named = [f"{kind}: {_list(names)}" for kind, names in found.items() if names]
    if named:
        return f"{folder}, whose files are not those that were signed ({'; '.join(named)})"
    return f"{folder}, whose {SIGNATURE} cannot be checked ({_first_words(error)})"


def _list(names: list[str]) -> str:
    every = [name for part in names for name in part.split(", ")]
    more = len(every) - _MAX_NAMED
    return ", ".join(every[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _refused(received: str, key: Path) -> GateRefused:
    return GateRefused(received, f"the files that were signed with the key of {key}", _GET_AGAIN)


def _read_signature(folder: Path) -> bytes:
    try:
        return read_content(folder / SIGNATURE, _LARGEST_SIGNATURE)
    except OSError as error:
        raise GateRefused(
            f"{folder / SIGNATURE}, which cannot be read ({error.strerror or error})",
            f"a signature of at most {_LARGEST_SIGNATURE >> 20} MiB",
            _GET_AGAIN,
        ) from error


def _require_extra() -> None:
    missing = [name for name in ("model_signing", "cryptography", "OpenSSL") if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"signatures without the package {missing[0]}",
            "pixelmill with its extra `signing`",
            f"Install it: {install_command('signing')}",
        )


def _read_key(path: Path, field: str, expected: str, remedy: str) -> bytes:
    try:
        return read_content(path, _LARGEST_KEY)
    except OSError as error:
        raise RequestError(f"`{field}` {path} ({error.strerror or error})", expected, remedy) from error


def _require_curve(path: Path, key: Any, expected: str, remedy: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in _CURVES:
        raise _no_key(f"key {path} ({curve or type(key).__name__.strip('_')})", expected, remedy)


def _no_key(received: str, expected: str, remedy: str) -> RequestError:
    return RequestError(received, expected, remedy)


def _first_words(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:100]}" if words else type(error).__name__
