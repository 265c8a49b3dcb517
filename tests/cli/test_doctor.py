"""zmqmr doctor, on this machine as it is and as it must not be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from environment import clean_environment


def doctor(**environment: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and for each check its level, its text and, where there is one, its advice."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "zmqmr", "doctor"],
        env=clean_environment(PYTHONPATH=paths, **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    name = ""
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            found[name].append(line.strip())
        else:
            level, name, text = line.split(maxsplit=2)
            found[name] = [level, text]
    return done.returncode, found


def test_a_machine_that_runs_these_tests_is_well():
    code, found = doctor()

    assert code == 0
    assert list(found) == ["python", "libraries", "mrjob", "hook", "sort", "space", "state", "settings"]
    assert not [name for name, (level, *_) in found.items() if level == "failed"]


def test_a_missing_sort_is_a_failure(tmp_path):
    code, found = doctor(PATH=str(tmp_path))

    assert code == 1
    assert found["sort"] == ["failed", "there is no sort on the PATH", "Install GNU coreutils."]


def test_another_sort_than_gnus_is_a_failure(tmp_path):
    (tmp_path / "sort").write_text("#!/bin/sh\necho 'sort 2.3 of another house'\n")
    (tmp_path / "sort").chmod(0o755)

    code, found = doctor(PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert code == 1
    assert found["sort"][:2] == ["failed", f"{tmp_path}/sort is not GNU sort: sort 2.3 of another house"]


def test_a_wrong_setting_is_a_failure():
    code, found = doctor(ZMQMR_SPLIT_BITES="1")

    assert code == 1
    assert found["settings"][0] == "failed"
    assert "ZMQMR_SPLIT_BITES" in found["settings"][1]
    assert str(found).count("ZMQMR_SPLIT_BITES") == 1


def test_a_changed_setting_is_named():
    assert doctor(ZMQMR_MAX_ATTEMPTS="2")[1]["settings"] == ["ok", "ZMQMR_MAX_ATTEMPTS"]


def test_a_hook_that_is_switched_off_is_a_warning():
    code, found = doctor(ZMQMR_NO_HOOK="1")

    assert code == 0
    assert found["hook"][0] == "warning"
    assert found["hook"][2] == "Unset ZMQMR_NO_HOOK."


def test_mrjob_that_cannot_be_imported_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mrjob.py").write_text("raise ImportError('mrjob is broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    code, found = doctor()

    assert code == 1
    assert found["mrjob"][:2] == ["failed", "cannot be imported: mrjob is broken"]
    assert found["hook"][0] == "failed"


def test_the_directories_that_jobs_use_are_looked_at(tmp_path: Path):
    state = tmp_path / "state"
    _, found = doctor(TMPDIR=str(tmp_path), XDG_STATE_HOME=str(state))

    assert found["space"][1].endswith(f"MiB free in {tmp_path}, for intermediate data")
    assert found["state"][1].endswith(f"MiB free in {state}/zmqmr, for records of jobs")
    assert not state.exists()


def test_directories_that_cannot_be_written_are_failures():
    proc = "/proc/self"  # where not even root can make a file
    code, found = doctor(TMPDIR=proc, ZMQMR_STATE_DIRECTORY=proc)

    assert code == 1
    assert found["space"][0] == found["state"][0] == "failed"
    assert found["space"][2] == "Set TMPDIR to another drive."
    assert found["state"][2] == "Set ZMQMR_STATE_DIRECTORY to another drive."
