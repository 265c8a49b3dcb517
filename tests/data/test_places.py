"""Where a job's data are: private, kept from a second user of the directory, and gone when of no use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zmqmr.data import places
from zmqmr.errors import UsageError


def test_a_jobs_directory_is_private_and_goes_with_the_last_job(tmp_path: Path) -> None:
    one, two = places.make(str(tmp_path / "base"), "one"), places.make(str(tmp_path / "base"), "two")
    for path in (one, os.path.dirname(one), os.path.join(one, places.SESSION)):
        assert os.stat(path).st_mode & 0o777 == 0o700
    places.remove(one)
    assert os.path.isdir(two)
    places.remove(two)
    assert os.listdir(tmp_path / "base") == []


def test_the_base_is_the_option_then_tmpdir_then_one_that_survives_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert places.base_directory("/given") == "/given"
    assert places.base_directory(None) == str(tmp_path)
    monkeypatch.delenv("TMPDIR")
    assert places.base_directory(None) == "/var/tmp"


@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_directory_that_others_could_change_is_refused(tmp_path: Path, how: str) -> None:
    own = Path(places.own_directory(str(tmp_path)))
    if how == "open to others":
        own.mkdir()
        own.chmod(0o755)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.touch()
    with pytest.raises(UsageError, match="yours alone"):
        places.make(str(tmp_path), "job")


def test_of_a_job_that_failed_its_spools_stay_and_nothing_else(tmp_path: Path) -> None:
    data = Path(places.make(str(tmp_path), "job"))
    spools = Path(places.spools(str(data), "job"))
    spools.mkdir(parents=True)
    (spools / "key").write_text("records")
    for path in ("session/journal", "agent/job/work", "agent/job/attempts/a/out", "agent/other/x"):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).touch()
    (data / "output").mkdir()
    places.prune(str(data))
    left = [os.path.join(folder, name) for folder, _, names in os.walk(data) for name in names]
    assert left == [str(spools / "key")]
    assert sorted(os.listdir(data)) == ["agent"]
    assert os.listdir(data / "agent") == ["job"]

    (spools / "key").unlink()
    places.prune(str(data))
    assert os.listdir(tmp_path) == []


def test_f4_a_directory_has_one_user_at_a_time(tmp_path: Path) -> None:
    lock = places.lock(str(tmp_path))
    script = "import sys; from zmqmr.data import places; print(places.lock(sys.argv[1]) >= 0)"
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"
    os.close(lock)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "True\n"
