"""Where the output goes, and what lies there."""

import bz2
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from differential.harness import JOBS, SMALL, Result, plain_environ, run, run_stock, run_zmqmr

Compare = Callable[..., Result]


def _parts(output: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(output.glob("part-*")))


def test_an_output_folder_holds_numbered_parts_and_the_sign_of_success(text: Path, tmp_path: Path) -> None:
    ours = run_zmqmr("word_count", [], [text], tmp_path / "new" / "out", environ=SMALL)
    assert ours.rc == 0, ours.stderr
    assert sorted(ours.files) == ["_SUCCESS"] + [f"part-{n:05d}" for n in range(len(ours.parts))]
    assert ours.files["_SUCCESS"] == b""
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == sorted(ours.files)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]


def test_an_empty_output_folder_may_be_there_already(text: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ours = run_zmqmr("map_only", [], [text], tmp_path / "out", environ=SMALL)
    assert ours.rc == 0, ours.stderr
    assert ours.parts


@pytest.mark.parametrize("job", ["word_count", "map_only"])
def test_standard_output_is_the_parts_in_their_order(text: Path, tmp_path: Path, job: str) -> None:
    printed = run_zmqmr(job, [], [text], environ=SMALL)
    both = run_zmqmr(job, ["--cat-output"], [text], tmp_path / "out", environ=SMALL)
    assert printed.rc == both.rc == 0, printed.stderr
    assert printed.stdout == both.stdout == _parts(tmp_path / "out") != b""


def test_nothing_is_printed_when_so_asked(text: Path) -> None:
    ours = run_zmqmr("word_count", ["--no-cat-output"], [text], environ=SMALL)
    assert ours.rc == 0, ours.stderr
    assert ours.stdout == b""


def test_the_output_of_each_step_is_kept_when_so_asked(text: Path, tmp_path: Path) -> None:
    args = ["--chain", "mr,m", "--step-output-dir", str(tmp_path / "steps")]
    ours = run_zmqmr("chains", args, [text], tmp_path / "out", environ=SMALL)
    assert ours.rc == 0, ours.stderr
    first = run_stock("word_count", inputs=[text])
    kept = sorted(path for path in (tmp_path / "steps").rglob("part-*"))
    lines = sorted(b"".join(path.read_bytes() for path in kept).splitlines())
    assert lines == sorted(first.stdout.splitlines())
    assert ours.lines == run_stock("chains", ["--chain", "mr,m"], [text]).lines


@pytest.mark.parametrize(
    ("codec", "suffix", "unpack"),
    [
        ("org.apache.hadoop.io.compress.GzipCodec", ".gz", gzip.decompress),
        ("org.apache.hadoop.io.compress.BZip2Codec", ".bz2", bz2.decompress),
    ],
)
def test_compressed_parts(
    text: Path, tmp_path: Path, codec: str, suffix: str, unpack: Callable[[bytes], bytes]
) -> None:
    args = ["-D", "mapreduce.output.fileoutputformat.compress=true"]
    args += ["-D", f"mapreduce.output.fileoutputformat.compress.codec={codec}", "--cat-output"]
    ours = run_zmqmr("word_count", args, [text], tmp_path / "out", environ=SMALL)
    assert ours.rc == 0, ours.stderr
    assert all(re.fullmatch(rf"part-\d{{5}}\{suffix}", name) for name in ours.parts)
    plain = b"".join(unpack(data) for _, data in sorted(ours.parts.items()))
    assert plain == ours.stdout
    assert sorted(plain.splitlines()) == sorted(run_stock("word_count", inputs=[text]).stdout.splitlines())


def test_counters_by_step(compare: Compare, text: Path) -> None:
    first, second = compare("counting", inputs=[text]).counters
    lines = text.read_bytes().count(b"\n")
    assert first["mapper"] == {"lines": lines}
    assert first["raw"] == {"from mapper": 3 * lines}
    assert set(second) == {"mapper"}


PROGRAM = """
import json, sys
import zmqmr.register
from counting import Job

job = Job(["-r", sys.argv[1], "--no-conf", sys.argv[2]])
with job.make_runner() as runner:
    runner.run()
    counters = runner.counters()
    pairs = sorted(job.parse_output(runner.cat_output()))
print(json.dumps([counters, pairs]))
"""


def test_a_program_gets_counters_and_pairs(text: Path) -> None:
    answers = []
    for runner in ("inline", "zeromq"):
        program = PROGRAM.replace("\nimport zmqmr.register", "") if runner == "inline" else PROGRAM
        python_path = f"{JOBS}:{plain_environ().get('PYTHONPATH', '')}"
        environ = plain_environ({"PYTHONPATH": python_path} | (SMALL if runner == "zeromq" else {}))
        ended = run([sys.executable, "-c", program, runner, text], environ)
        assert ended.rc == 0, ended.stderr
        answers.append(json.loads(ended.stdout))
    assert answers[0] == answers[1]
