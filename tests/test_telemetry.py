"""Commands run under a trace, which shows that they contact only this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import running_cluster
from tests.conftest import PIXELMILL, write_images
from tests.pipeline.bundles.test_signing import write_keys
from tests.tracing import Traced, outside_addresses, run_traced

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def default_environment(environment: dict[str, str], home: Path) -> dict[str, str]:
    """The environment of a user with default settings and an empty home."""
    home.mkdir()
    kept = {name: value for name, value in environment.items() if name not in SWITCHES and name != "CI"}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}


def require_no_telemetry(traced: Traced, home: Path) -> None:
    """Check that a command succeeded, contacted no other host, and created no database of onnxruntime."""
    assert traced.code == 0, traced.errors
    assert traced.outside == []
    assert not list(home.rglob("*onnxruntime*"))


def test_a_trace_shows_the_contacted_addresses() -> None:
    trace = """\
1 connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0
1 connect(3, {sa_family=AF_INET, sin_port=htons(4200), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
1 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
1 sendto(3, ""..., 4, 0, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.7")}, 16) = 4
1 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1
1 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0
"""
    assert outside_addresses(trace) == ["127.0.0.53:53", "192.0.2.7:80", "2001:db8::1:443"]


@pytest.mark.parametrize("module", ["pixelmill.pipeline.inference", "pixelmill.flows.commands.options"])
def test_telemetry_is_off_for_library_users_with_any_settings(module: str) -> None:
    program = (
        f"import os, {module}\nprint(*[os.environ.get(name) for name in {list(SWITCHES)}])\n"
        "import openvino.tools.ovc as ovc\nprint(ovc.telemetry.__class__.__module__)"
    )
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["1 1 false", "openvino.tools.ovc.telemetry_stub"]


def test_scoring_contacts_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str]
) -> None:
    write_images(tmp_path / "images", 20)
    command = [str(PIXELMILL), "score", "digits@1", str(tmp_path / "images")]
    command += ["--output", str(tmp_path / "out"), "--store", str(trained_store)]
    require_no_telemetry(run_traced(command, tmp_path / "trace", default_environment), home)
    row = [str(PIXELMILL), "explain", str(tmp_path / "out"), "00000.png", "--store", str(trained_store)]
    require_no_telemetry(run_traced(row, tmp_path / "trace", default_environment), home)


def test_verifying_on_all_engines_contacts_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str]
) -> None:
    command = [str(PIXELMILL), "verify", "digits@1", "--store", str(trained_store)]
    require_no_telemetry(run_traced(command, tmp_path / "trace", default_environment), home)


def test_signing_and_checking_a_signature_contact_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str]
) -> None:
    key, public = write_keys(tmp_path)
    out = str(tmp_path / "out")
    sign = ["export", "digits@1", "--output", out, "--sign", str(key), "--store", str(trained_store)]
    for words in (sign, ["verify", out, "--key", str(public), "--engine", "onnxruntime"]):
        traced = run_traced([str(PIXELMILL), *words], tmp_path / "trace", default_environment)
        require_no_telemetry(traced, home)


HELD = """
import sys, time
from pathlib import Path
import numpy as np
from pixelmill.pipeline.inference import load_session

if __name__ == "__main__":
    model, seconds = Path(sys.argv[1]), float(sys.argv[2])
    session, until = load_session(model), time.monotonic() + seconds
    while time.monotonic() < until:
        session.probabilities(np.zeros((64, 8, 8, 1), np.uint8))
"""


@pytest.mark.slow
def test_a_session_open_for_a_minute_contacts_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str]
) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    command = [sys.executable, str(script), str(trained_store / "models/digits/1/model.onnx"), "60"]
    require_no_telemetry(run_traced(command, tmp_path / "trace", default_environment), home)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "export digits@1 --output OUTPUT --runtime-version 1.11",
        "retrain digits --set training.epochs=40 --set promotion.min_accuracy=0",
        "models list",
        "recipes show digits",
    ],
)
def test_a_command_contacts_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str], command: str
) -> None:
    store = shutil.copytree(trained_store, tmp_path / "store")
    words = [word.replace("OUTPUT", str(tmp_path / "out")) for word in command.split()]
    options = [] if words[0] == "recipes" else ["--store", str(store)]
    environment = {**default_environment, "PREFECT_HOME": str(tmp_path / "prefect")}
    require_no_telemetry(
        run_traced([str(PIXELMILL), *words, *options], tmp_path / "trace", environment), home
    )


@pytest.mark.slow
def test_scoring_on_a_cluster_contacts_no_other_host(
    trained_store: Path, tmp_path: Path, home: Path, default_environment: dict[str, str]
) -> None:
    write_images(tmp_path / "images", 2000)
    command = [str(PIXELMILL), "score", "digits@1", str(tmp_path / "images")]
    command += ["--output", str(tmp_path / "out"), "--store", str(trained_store)]
    with running_cluster(environment=default_environment) as cluster:
        command += ["--executor", "dask", "--dask-address", cluster.address]
        require_no_telemetry(run_traced(command, tmp_path / "trace", default_environment), home)
