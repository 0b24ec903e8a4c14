"""The deployments: templates in the package, written out for changes, and registered at a Prefect server."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from pixelmill.flows.server_api import ServerApi
from pixelmill.pipeline.artifacts import scratch_folder, write_text
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.storage import Location, absolute

PREFECT_FILE = "prefect.yaml"
_DEFAULT_STORE = "artifacts"
_SECONDS_TO_DEPLOY = 300
# The file names flows by their path in the project, so that `prefect deploy` finds them in a checkout. By the
# module, they are found in every folder and without a checkout.
_ENTRYPOINT = re.compile(r"(entrypoint:\s*)flows/(\w+)\.py:(\w+)")
_DECORATION = re.compile(r"[\s│╭╮╰╯─]+")


@dataclass(frozen=True)
class Registration:
    """What `register_deployments` registered, as `FLOW/DEPLOYMENT`, and the file that it was read from."""

    deployments: tuple[str, ...]
    file: str


def write_templates(folder: Path) -> list[Path]:
    """Write the deployment files of the package to a folder, for changes.

    Returns:
        The files written.

    Raises:
        RequestError: One of them exists; then, none is written.
    """
    contents = {name: source.read_text(encoding="utf-8") for name, source in _templates(_package_folder())}
    present = [name for name in contents if (folder / name).exists()]
    if present:
        raise RequestError(
            f"{folder / present[0]}, which exists",
            "a folder without deployment files, so that no change is lost",
            "Choose another folder, or move the file away.",
        )
    for name, content in contents.items():
        write_text(folder / name, _by_module(content))
    return [folder / name for name in contents]


def find_prefect_file(home: Path) -> Path | None:
    """The deployments of a project: `prefect.yaml` in its folder or in `deploy/`; None for the package's."""
    found = [path for path in (home / PREFECT_FILE, home / "deploy" / PREFECT_FILE) if path.is_file()]
    return found[0] if found else None


def register_deployments(
    api: ServerApi, file: Path | None, store: Location, home: Path, environment: Mapping[str, str]
) -> Registration:
    """Register deployments at a server, and create the work pools that they name.

    Args:
        api: The server.
        file: A `prefect.yaml`; the package's if None.
        store: The store for deployments whose parameter `store` is the default.
        home: The folder in which the worker runs the flows, which a relative store is relative to.
        environment: The environment variables for Prefect; they must name the same server.

    Raises:
        RequestError: The file is not a list of deployments.
        WorkError: Prefect refuses them.
    """
    source = str(file or f"pixelmill/deploy/{PREFECT_FILE}")
    text = file.read_text("utf-8") if file else (_package_folder() / PREFECT_FILE).read_text("utf-8")
    content = _parse(text, source)
    for deployment in content["deployments"]:
        parameters = deployment.get("parameters") or {}
        if parameters.get("store") == _DEFAULT_STORE and absolute(store) != str(home / _DEFAULT_STORE):
            parameters["store"] = absolute(store)
    for pool in sorted({each["work_pool"]["name"] for each in content["deployments"]}):
        if api.find(f"work_pools/{pool}") is None:
            api.post("work_pools/", name=pool, type="process")
    with scratch_folder("deployments") as folder:
        (folder / PREFECT_FILE).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        _deploy(folder / PREFECT_FILE, home, environment)
    named = {each["name"] for each in content["deployments"]}
    return Registration(
        tuple(sorted(name for name in deployment_names(api).values() if name.split("/")[1] in named)), source
    )


def deployment_names(api: ServerApi) -> dict[str, str]:
    """Every deployment of a server as `FLOW/DEPLOYMENT`, by its ID."""
    flows = {flow["id"]: flow["name"] for flow in api.every("flows/filter")}
    return {
        deployment["id"]: f"{flows.get(deployment['flow_id'], '?')}/{deployment['name']}"
        for deployment in api.every("deployments/filter")
    }


def _deploy(file: Path, home: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt"]
    command += ["deploy", "--all", "--prefect-file", str(file)]
    try:
        done = subprocess.run(
            command,
            cwd=home,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_DEPLOY,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refusal(f"no end after {_SECONDS_TO_DEPLOY} s") from error
    if done.returncode:
        lines = [_DECORATION.sub(" ", line).strip() for line in (done.stderr or done.stdout).splitlines()]
        raise _refusal(next((line for line in reversed(lines) if line), f"exit code {done.returncode}"))


def _refusal(trouble: str) -> WorkError:
    return WorkError(
        f"Prefect did not accept the deployments ({trouble})",
        f"a {PREFECT_FILE} as `pixelmill deploy` writes it",
        "Correct the file, and check it with `prefect deploy`.",
    )


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_by_module(text))
    except yaml.YAMLError as error:
        raise _malformed(source, " ".join(str(error).split())) from error
    deployments = content.get("deployments") if isinstance(content, dict) else None
    if not isinstance(deployments, list) or not deployments:
        raise _malformed(source, "it has no list `deployments`")
    for deployment in deployments:
        pool = deployment.get("work_pool") if isinstance(deployment, dict) else None
        if not isinstance(pool, dict) or "name" not in pool or "name" not in deployment:
            raise _malformed(source, "a deployment lacks its name or the name of its work pool")
    parsed: dict[str, Any] = content
    return parsed


def _malformed(source: str, trouble: str) -> RequestError:
    return RequestError(
        f"{source} ({trouble})",
        "a file of deployments for Prefect",
        "Correct it, or write a new one with `pixelmill deploy`.",
    )


def _by_module(text: str) -> str:
    return _ENTRYPOINT.sub(r"\1pixelmill.flows.\2.\3", text)


def _package_folder() -> Traversable:
    return files("pixelmill") / "deploy"


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    """The files below a folder of the package, by relative path."""
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        found += _templates(entry, f"{name}/") if entry.is_dir() else [(name, entry)]
    return found
