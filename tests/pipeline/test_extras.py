"""The command that installs an extra names where pixelmill was installed from."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pixelmill.pipeline.extras import install_command

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "install"]


def test_a_checkout_is_named_with_its_constraints() -> None:
    words = shlex.split(install_command("flows", "train"))
    assert words[:5] == [*PIP, "--constraint"]
    place, _, names = words[-1].partition("[")
    assert (Path(place) / "pyproject.toml").is_file()
    assert Path(words[5]) == Path(place) / "constraints.txt"
    assert names == "flows,train]"


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("here/pixelmill.whl", f"{shlex.join(PIP)} '{{folder}}/here/pixelmill.whl[s3]'"),
        (
            "gone/pixelmill.whl",
            f"{shlex.join(PIP)} --constraint constraints.txt '.[s3]' in a checkout of pixelmill",
        ),
    ],
)
def test_a_wheel_is_named_while_it_is_there(tmp_path: Path, source: str, command: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/pixelmill.whl").touch()
    # What pip leaves behind when it installs a file.
    record = tmp_path / "site/pixelmill-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: pixelmill\nVersion: 1.0\n")
    (record / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / source).as_uri(), "archive_info": {}})
    )
    program = "from pixelmill.pipeline.extras import install_command; print(install_command('s3'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == command.format(folder=tmp_path)
