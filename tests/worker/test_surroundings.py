"""What content keys see of the place that tasks run in."""

import os
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from zmqmr.worker.surroundings import surroundings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a project that is installed where it is edited: its directory is on sys.path alone."""
    module = tmp_path / "project" / "package" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text("ANSWER = 41\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "project")])
    return module


def _edit(module: Path) -> None:
    module.write_text("ANSWER = 4200\n")


def _unlink(module: Path) -> None:
    module.unlink()


def _say_to_tasks(module: Path) -> None:
    os.environ["SAID_TO_TASKS"] = "1"


@pytest.mark.parametrize("change", [_edit, _unlink, _say_to_tasks])
def test_what_may_change_the_records_is_seen(
    project: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAID_TO_TASKS", "0")
    before = surroundings()
    assert surroundings() == before
    change(project)
    assert surroundings() != before


def test_what_the_terminal_or_the_login_says_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = surroundings()
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setenv("SSH_CONNECTION", "elsewhere")
    assert surroundings() == before


def test_another_interpreter_for_tasks_is_asked_what_it_is(tmp_path: Path) -> None:
    venv.create(tmp_path / "other")
    other = [str(tmp_path / "other" / "bin" / "python")]
    before = surroundings(other)
    assert before != surroundings()
    assert surroundings(other) == before
    (site_packages,) = (tmp_path / "other").glob("lib/python*/site-packages")
    (site_packages / "new_library.py").write_text("")
    assert surroundings(other) != before


@pytest.mark.parametrize("command", [["false"], ["no-such-interpreter"]])
def test_an_interpreter_that_does_not_run_fails_later_with_its_tasks(command: list[str]) -> None:
    assert "does not run" in surroundings(command)
