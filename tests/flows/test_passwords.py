"""A password in an address or in the environment appears nowhere: logs, states, parameters, files."""

import logging
from pathlib import Path

import pytest

from pixelmill.flows.passwords import hide, hide_in_logs, reveal
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.recipes import dump_recipe, load_recipe
from tests.conftest import Run
from tests.flows.conftest import ask, newest_run, prefect_server
from tests.servers import FileServer, serving

PASSWORD = "Pl4nted,Secret!"
KEY = "planted/key+from/the/environment"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host/a", "http://***@host/a"),
        ("http://token@host/a", "http://***@host/a"),
        ("http://me:p@w@host:1/a?b=c@d", "http://***@host:1/a?b=c@d"),
        (f"[http://a/b, 'http://me:{PASSWORD}@h/']", "[http://a/b, 'http://***@h/']"),
        ("http://host/a@b", "http://host/a@b"),
        ("me@example.org", "me@example.org"),
        ("s3://bucket/me@home", "s3://bucket/me@home"),
    ],
)
def test_passwords_in_addresses_are_replaced(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert str(WorkError(text, "x", "y.")) == f"{shown}; expected x. y."


def test_the_values_of_secret_variables_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("SHORT_TOKEN", "image")
    assert without_passwords(f"denied for {KEY}: image") == "denied for ***: image"


def test_overrides_are_hidden_and_revealed() -> None:
    overrides = (f"dataset.mirrors=[http://me:{PASSWORD}@h/]", "training.epochs=3")
    hidden = hide(overrides)
    assert hidden == ("dataset.mirrors=[http://***@h/]", "training.epochs=3")
    assert reveal(hidden) == overrides
    for override in ("dataset.mirrors=[http://you:pw@other/]", "dataset.mirrors=[http://***@other/]"):
        with pytest.raises(RequestError, match=r"`overrides` has .*\*\*\*.*, an address with a password"):
            reveal([override])


def test_a_recipe_is_written_without_them() -> None:
    recipe = load_recipe("mnist", [f"dataset.mirrors=['http://me:{PASSWORD}@h/']"])
    assert PASSWORD in repr(recipe.dataset)
    assert PASSWORD not in dump_recipe(recipe)
    assert PASSWORD not in recipe.model_dump_json()


def test_logs_and_tracebacks_are_without_them(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pixelmill")
    logger.addHandler(caplog.handler)
    try:
        hide_in_logs()
        try:
            int(f"http://me:{PASSWORD}@h/")
        except ValueError:
            logger.exception("from %s", f"http://me:{PASSWORD}@h/")
        assert "from http://***@h/" in caplog.text
        assert "invalid literal for int() with base 10: 'http://***@h/'" in caplog.text
        assert PASSWORD not in caplog.text
    finally:
        logger.removeHandler(caplog.handler)
        caplog.handler.filters.clear()


@pytest.mark.slow
@pytest.mark.xdist_group("prefect-server")
@pytest.mark.timeout(900)
def test_a_planted_password_appears_nowhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with prefect_server(tmp_path / "home") as server, serving(FileServer({})) as mirror:
        address = mirror.url.replace("://", f"://me:{PASSWORD}@")
        settings = [f"dataset.mirrors=['{address}']", "dataset.package_index=false"]
        result = run(
            *("retrain", "mnist", "--store", tmp_path / "store"),
            *(word for setting in settings for word in ("--set", setting)),
            env={**server.environment, "AWS_SECRET_ACCESS_KEY": KEY},
        )
        assert mirror.requests
        assert result.code == 1, result.errors
        assert "http://***@127.0.0.1" in result.last_error
        assert newest_run(server, "retrain")["state"]["name"] == "Failed"
        assert "Traceback" not in "".join(log["message"] for log in ask(server, "logs/filter"))
        everything = _contents(tmp_path)
    # The database has the runs, their parameters, states, logs and artifacts.
    assert b"dataset.mirrors=['http://***@127.0.0.1" in everything
    for secret in (PASSWORD, KEY):
        assert secret.encode() not in everything
        assert secret not in result.errors + result.output


def _contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
