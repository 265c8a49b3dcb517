"""However a run ends, none of its processes and none of its files stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import DEADLINE_SECONDS, SMALL, job_path, run_zmqmr
from process.places import Place, wait_until


@pytest.mark.parametrize("job", ["word_count", "chains", "map_only"])
def test_after_success(place: Place, words: Path, tmp_path: Path, job: str) -> None:
    ended = run_zmqmr(job, [], [words], tmp_path / "out", environ=place.environ(**SMALL))
    assert ended.rc == 0, ended.stderr
    place.assert_nothing_left()
    assert os.listdir(place.temporary) == []


def test_after_success_with_output_on_stdout_and_input_on_stdin(place: Place, words: Path) -> None:
    ended = run_zmqmr("word_count", stdin=words.read_bytes(), environ=place.environ(**SMALL))
    assert ended.rc == 0, ended.stderr
    assert ended.stdout
    place.assert_nothing_left()


@pytest.mark.parametrize("where", ["mapper", "reducer"])
def test_after_failure(place: Place, tmp_path: Path, where: str) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("good\nbad\n")
    args = ["--how", "exception", "--where", where]
    ended = run_zmqmr("ends_badly", args, [bad], tmp_path / "out", environ=place.environ())
    assert ended.rc == 1, ended.stderr
    assert not (tmp_path / "out").exists()
    place.assert_nothing_left()


class Busy:
    """A run that is in the middle of its work: its tasks have said so in files and now wait for ever."""

    def __init__(self, place: Place, folder: Path, words: Path, where: str) -> None:
        self.place = place
        self.output = folder / "out"
        self.started = folder / "started"
        self.started.mkdir()
        command = [sys.executable, "-m", "zmqmr.cli.run", job_path("waits"), "--no-conf", "-o", self.output]
        command += ["--where", where, "--tell", self.started, words]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=place.environ(**SMALL),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wait_until(lambda: any(self.started.iterdir()) or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[0].decode()

    def end(self) -> tuple[int, str]:
        """Wait for the client's end: its exit status and all that it said."""
        said, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, said.decode(errors="replace")

    def assert_gone(self) -> None:
        """Nothing is left, and nothing that looks like output."""
        self.place.assert_nothing_left()
        assert not self.output.exists() or not any(self.output.iterdir())


@pytest.fixture(params=["mapper", "reducer"])
def busy(request: pytest.FixtureRequest, place: Place, tmp_path: Path, words: Path) -> Busy:
    return Busy(place, tmp_path, words, request.param)


def test_after_an_interrupt_from_the_terminal(busy: Busy) -> None:
    os.killpg(busy.process.pid, signal.SIGINT)
    code, said = busy.end()
    assert code == 130, said
    assert "Traceback" not in said
    busy.assert_gone()


def test_after_an_interrupt_of_the_client_alone(busy: Busy) -> None:
    busy.process.send_signal(signal.SIGINT)
    code, said = busy.end()
    assert code == 130, said
    assert "Traceback" not in said
    busy.assert_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_after_the_client_is_asked_to_end(busy: Busy, number: signal.Signals) -> None:
    busy.process.send_signal(number)
    code, said = busy.end()
    assert code != 0
    assert "Traceback" not in said
    busy.assert_gone()


def test_after_the_client_is_killed(busy: Busy) -> None:
    """A killed client cannot clean up after itself; what it started can, and does."""
    busy.process.kill()
    code, _ = busy.end()
    assert code == -signal.SIGKILL
    busy.assert_gone()
