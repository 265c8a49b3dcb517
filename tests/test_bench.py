"""The benchmark's own parts: data, measuring, comparison. No test looks at how fast anything is."""

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from environment import ROOT

sys.path.append(str(ROOT))

from bench import data, run, systems
from bench.measure import Usage, descendants, measure, memory_bytes

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


# --- data ------------------------------------------------------------------------------------


def test_the_data_is_the_same_everywhere(tmp_path: Path) -> None:
    md5 = {
        kind: hashlib.md5(data.make(kind, 100_000, tmp_path).read_bytes()).hexdigest()
        for kind in ("text", "records", "tiny")
    }
    assert md5 == {
        "text": "166fa1663507ab522097aa2df247219f",
        "records": "6706a578a2fd785f6f7c874bca610adf",
        "tiny": "0e2ce01641417b94ce3293949c811d86",
    }


def test_text_has_the_size_asked_for_and_the_frequencies_of_a_language() -> None:
    lines = list(data.text(400_000))
    size = sum(map(len, lines))
    assert 400_000 <= size < 400_000 + len(lines[-1])
    common = [count for _, count in Counter(b"".join(lines).split()).most_common(3)]
    assert common[0] == pytest.approx(2 * common[1], rel=0.2)
    assert common[0] == pytest.approx(3 * common[2], rel=0.2)


def test_the_words_all_differ() -> None:
    assert len(set(data.words())) == data.VOCABULARY


def test_records_are_lines_of_100_bytes_with_three_to_a_key() -> None:
    lines = list(data.records(3000))
    assert {len(line) for line in lines} == {100}
    assert all(line.endswith(b"\n") and len(line.split()) == 3 for line in lines)
    assert 900 < len({line.split()[0] for line in lines}) <= 1000


def test_data_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = data.make("tiny", 1, tmp_path)
    path.write_bytes(b"kept")
    assert data.make("tiny", 1, tmp_path).read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [path]


# --- measuring -------------------------------------------------------------------------------


def measured(tmp_path: Path, program: str) -> Usage:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return measure(command, tmp_path / "usage.json", check=True)


def test_the_time_of_an_orphan_is_counted(tmp_path: Path) -> None:
    burn = BURN.format(seconds=0.5)
    daemon = f"""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                exec({burn!r})
            os._exit(0)
        os._exit(0)
    """
    usage = measured(tmp_path, daemon)
    assert usage.returncode == 0
    assert usage.cpu_seconds >= 0.5
    assert usage.left == 0


def test_the_time_of_grandchildren_is_counted(tmp_path: Path) -> None:
    burn = BURN.format(seconds=0.3)
    program = f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {burn!r}])"
    assert measured(tmp_path, program).cpu_seconds >= 0.6


def test_what_never_ends_is_killed_and_counted(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"""
        import os, time
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(600)
        open({str(note)!r}, "w").write(str(pid))
    """
    assert measured(tmp_path, program).left == 1
    assert not Path("/proc", note.read_text()).exists()


def test_the_memory_of_the_whole_tree_is_seen(tmp_path: Path) -> None:
    program = """
        import os, time
        if os.fork() == 0:
            held = b"x" * 60_000_000
            time.sleep(1)
            os._exit(0)
        held = b"x" * 40_000_000
        os.wait()
    """
    usage = measured(tmp_path, program)
    assert 100_000_000 < usage.peak_bytes < 160_000_000
    assert usage.processes == 2


def test_shared_memory_is_counted_once(tmp_path: Path) -> None:
    program = """
        import os, time
        held = b"x" * 80_000_000
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(1)
                os._exit(0)
        for _ in range(3):
            os.wait()
    """
    assert 80_000_000 < measured(tmp_path, program).peak_bytes < 150_000_000


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_the_exit_of_the_command_is_reported(tmp_path: Path, program: str, code: int) -> None:
    assert measured(tmp_path, program).returncode == code


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-command could not be run"):
        measure(["no-such-command"], tmp_path / "usage.json", stderr=subprocess.DEVNULL)


def test_a_process_that_ended_uses_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert memory_bytes(child.pid) == 0
    assert descendants(child.pid) == []


# --- comparing -------------------------------------------------------------------------------


def a_run(system: str, md5: str = "a", wall: float = 1.0, cpu: float = 1.0) -> run.Run:
    return run.Run("wc", system, Usage(0, wall, cpu, 10**6, 1, 0), md5, 1)


def test_the_order_of_the_output_and_its_files_does_not_matter(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a\nb\n")
    other.write_bytes(b"c")  # some systems leave the last line open
    whole = tmp_path / "whole"
    whole.write_bytes(b"c\nb\na\n")
    assert run.digest([one, other]) == run.digest([whole])
    assert run.digest([one]) != run.digest([whole])


def test_no_output_at_all_is_a_failure() -> None:
    with pytest.raises(run.RunFailed):
        run.digest([])


def test_a_different_output_is_reported_with_who_wrote_it() -> None:
    assert run.differences([a_run("zmqmr"), a_run("inline")]) == []
    (sentence,) = run.differences([a_run("zmqmr"), a_run("inline"), a_run("dask", "b")])
    assert sentence == "The outputs of wc differ: a inline, zmqmr; b dask."


def test_rows_are_medians_with_ratios_to_zmqmr() -> None:
    runs = [a_run("zmqmr", wall=wall, cpu=4) for wall in (1, 2, 9)] + [a_run("inline", wall=5, cpu=2)]
    zmqmr, inline = run.summarise(runs)
    assert (zmqmr.wall_seconds, zmqmr.wall_ratio, zmqmr.cpu_ratio) == (2, 1, 1)
    assert (inline.wall_ratio, inline.cpu_ratio) == (2.5, 0.5)
    assert "| wc | inline | 5.00 | 2.00 | 1 | 2.50 | 0.50 | a |" in run.table([zmqmr, inline])


@pytest.mark.parametrize(("text", "size"), [("32M", 32 * 1024**2), ("7", 7), ("2G", 2 * 1024**3)])
def test_sizes_have_units(text: str, size: int) -> None:
    assert run.parse(["--size", text]).size == size


@pytest.mark.parametrize("argv", [["--size", "0"], ["--size", "M"], ["--jobs", "wc,x"], ["--systems", "x"]])
def test_nonsense_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.parse(argv)
    assert "error" in capsys.readouterr().err


def test_every_job_has_a_file() -> None:
    assert all(systems.script(job).is_file() for job in systems.JOBS)


def test_mrjob_and_the_pipeline_give_the_same_for_every_job(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--systems", "inline,sort", "--size", "50K"]
    done = subprocess.run([*command, "--cache", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 2 * len(systems.JOBS)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["records-51200.txt", "text-51200.txt", "tiny-51200.txt"]


def shell_system(name: str, commands: str) -> systems.System:
    def command(job: str, source: Path, output: Path) -> list[str]:
        return ["sh", "-ec", commands, str(source), str(output)]

    return systems.System(name, command, lambda: "")


def test_two_answers_or_a_failure_end_the_benchmark_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = shell_system("right", "mkdir $1; cat $0 > $1/part-0")
    wrong = shell_system("wrong", "mkdir $1; echo > $1/part-0")
    broken = shell_system("broken", "echo this is why >&2; exit 3")
    argv = ["--jobs", "tiny", "--cache", str(tmp_path), "--systems"]
    monkeypatch.setattr(run, "SYSTEMS", [right, wrong, broken])
    report = tmp_path / "report.json"
    assert run.main([*argv, "right", "--repeat", "2", "--json", str(report)]) == 0
    assert [one["system"] for one in json.loads(report.read_text())["runs"]] == ["right", "right"]
    assert run.main([*argv, "right,wrong"]) == 1
    assert "The outputs of tiny differ" in capsys.readouterr().err
    assert run.main([*argv, "broken"]) == 1
    assert "broken failed on tiny with 3:\nthis is why" in capsys.readouterr().err
