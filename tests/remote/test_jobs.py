"""Jobs on a cluster that shares no file with its client give what mrjob's inline runner gives."""

import gzip
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result, run, run_stock
from remote.cluster import RemoteCluster

from zmqmr import __version__
from zmqmr.messages import PROTOCOL


def same(result: Result, stock: Result) -> None:
    assert stock.rc == 0, stock.stderr
    assert result.rc == 0, result.stderr
    assert result.lines == stock.lines
    assert result.counters == stock.counters


def test_jobs_of_many_kinds_give_what_inline_gives(steady, text, ours):
    """One cluster, one job after the other: that no job is disturbed by those before it is part of it."""
    packed = ours / "more.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()[:5000]))
    empty = ours / "empty.txt"
    empty.touch()
    module = ours / "made_for_setup.py"
    module.write_text("def shout(text):\n    return text.upper()\n")
    inputs = (text, packed, empty)
    jobs: list[tuple[str, tuple[object, ...], tuple[Path, ...]]] = [
        ("word_count", (), inputs),
        ("chains", ("--chain", "mr,r,m,r"), (text,)),
        ("map_only", (), (text,)),
        ("raw_mapper", (), (text, module)),
        ("reads_uploads", ("--file", f"{module}#helper", "--want", "helper"), (text,)),
    ]
    for job, args, files in jobs:
        try:
            same(steady.run(job, *args, *files), run_stock(job, args, files))
        except AssertionError as error:
            raise AssertionError(f"{job}: {error}\n{steady.log()}") from error
    assert steady.stored() == []


def test_the_output_goes_where_it_is_asked_for(steady, text, ours):
    output, steps = ours / "out", ours / "steps"

    result = steady.run("chains", "--chain", "mr,m", "--step-output-dir", steps, text, output=output)

    stock = run_stock("chains", ["--chain", "mr,m"], [text])
    assert (result.rc, result.stdout) == (0, b""), result.stderr
    assert Counter(line for part in result.parts.values() for line in part.splitlines(True)) == Counter(
        stock.stdout.splitlines(True)
    )
    assert "_SUCCESS" in result.files
    folders = [path for path in steps.iterdir() if path.is_dir()]
    assert folders and all({"_SUCCESS", "part-00000"} <= set(os.listdir(path)) for path in folders)
    assert not (output / "_temporary").exists()


def test_a_task_sees_the_path_that_the_user_gave(steady, ours):
    one, two = ours / "one.txt", ours / "two.txt"
    one.write_text("a\n")
    two.write_text("b\n")
    job = ours / "names.py"
    job.write_text(
        "import os\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield os.environ['mapreduce_map_input_file'], line\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )

    result = steady.run(job, one, two)

    assert result.lines == Counter([f'"file://{one}"\t"a"'.encode(), f'"file://{two}"\t"b"'.encode()])


def test_standard_input_is_pushed_and_said(steady):
    result = steady.run("word_count", stdin=b"a b a\n")

    assert result.lines == Counter([b'"a"\t2', b'"b"\t1'])
    assert "pushing 1 input file, 6 bytes, to the cluster" in result.stderr


def test_what_the_store_has_is_not_pushed_again(steady, ours):
    words = ours / "new.txt"
    words.write_text("".join(f"word{n:04d} that no other test has\n" for n in range(100)))

    first, second = (steady.run("word_count", words) for _ in range(2))

    assert "pushed 3.2 kB; 0 bytes were there already" in first.stderr
    assert "pushed 0 bytes; 3.2 kB were there already" in second.stderr
    assert second.lines == first.lines


def test_what_is_in_two_inputs_is_pushed_once_and_said(steady, ours):
    for name in ("one.txt", "two.txt"):
        (ours / name).write_text("the same\n" * 100)

    result = steady.run("word_count", ours / "one.txt", ours / "two.txt")

    assert set(result.lines) == {b'"same"\t200', b'"the"\t200'}
    assert "pushed 900 bytes; 0 bytes were there already; 900 bytes were repetitions" in result.stderr


def test_setup_runs_once_for_each_host_and_job(steady, text, ours, tell):
    job = ours / "uses_setup.py"
    job.write_text(
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield open('made.txt').read(), 1\n\n"
        "    def reducer(self, key, ones):\n"
        "        yield key, sum(ones)\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )

    result = steady.run(job, "--setup", f"echo x >> {tell}/setups", "--setup", "printf made > made.txt", text)

    assert result.rc == 0, result.stderr
    assert [line.split(b"\t")[0] for line in result.lines] == [b'"made"']
    assert 1 <= (tell / "setups").read_text().count("x") <= 2  # one host may have been quicker than the other


def test_a_failure_names_the_users_file_and_the_offset(steady, ours):
    bad = ours / "bad.txt"
    bad.write_text("fine\n" * 1000 + "raise me\n" + "fine\n" * 10)

    result = steady.run("bad_records", bad)

    assert result.rc == 1
    assert f"while reading {bad} at byte 5000" in result.stderr
    assert "cannot take raise me" in result.stderr
    assert steady.stored() == []


def test_skipped_records_come_back_with_the_output(steady, ours):
    bad = ours / "bad.txt"
    bad.write_text("fine\n" * 20 + "raise me\n")

    result = steady.run("bad_records", "--skip-bad-records", "1", bad, output=ours / "out")

    assert result.rc == 0, result.stderr
    skipped = [path.read_text() for path in (ours / "out" / "_skipped").iterdir()]
    assert len(skipped) == 1 and "raise me" in skipped[0]


def test_an_input_that_changes_while_it_is_pushed_fails_the_job_F32(steady, ours):
    """Pinned when the job is planned: a named pipe in its place, or another size, is seen when it is read."""
    path = ours / "grows.txt"
    path.write_text("a\n" * 2000)
    job = ours / "grows.py"
    job.write_text(
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield line, 1\n\n\n"
        "if __name__ == '__main__':\n"
        "    import zmqmr.data.pushing as pushing\n"
        "    stock = pushing.push_splits\n\n"
        "    def push_splits(splits):\n"
        f"        open({str(path)!r}, 'a').write('b\\n')\n"
        "        return stock(splits)\n\n"
        "    import zmqmr.client.remote as remote\n"
        "    remote.push_splits = push_splits\n"
        "    Job.run()\n"
    )

    result = steady.run(job, path)

    assert result.rc != 0
    assert f"{path} changed after the job was planned" in result.stderr
    assert steady.stored() == []


def test_another_mrjob_is_refused_before_anything_is_pushed_F50(steady, ours):
    words = ours / "words.txt"
    words.write_text("a\n")
    job = ours / "old.py"
    job.write_text(
        "import mrjob\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield line, 1\n\n\n"
        "if __name__ == '__main__':\n"
        "    mrjob.__version__ = '0.6.12'\n"
        "    Job.run()\n"
    )

    result = steady.run(job, words)

    assert result.rc == 3
    *_, said = result.stderr.splitlines()
    assert "has mrjob 0.6.12, the coordinator on " in said and "has mrjob 0.7." in said
    assert "pushing" not in result.stderr and steady.stored() == []


OF_ANOTHER_RELEASE = """
import sys
from msgspec.structs import replace
from zmqmr.cli.main import main
from zmqmr.client import remote

ours = remote.greeting
remote.greeting = lambda *words, **more: replace(ours(*words, **more), version="9.9", protocol=99)
sys.exit(main())
"""


@pytest.mark.parametrize("command", ["jobs", "show LAST", "attach LAST", "kill LAST"])
def test_a_command_of_another_release_is_refused_and_both_sides_are_named_F50(steady, command):
    result = run(
        [sys.executable, "-c", OF_ANOTHER_RELEASE, *command.split(), "--cluster", steady.name],
        steady.environ(),
    )

    (said,) = result.stderr.splitlines()
    assert result.rc == 3 and result.stdout == b""
    for side in ("has zmqmr 9.9 (protocol 99)", f"has zmqmr {__version__} (protocol {PROTOCOL})"):
        assert side in said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere", "no cluster nowhere is known here"),
        ("a/b", "neither the name of a cluster"),
        ("tcp://10.0.0.1:2681", "set ZMQMR_KEYS to the folder that has its coordinator.pub"),
        ("tcp://127.0.0.1:99999", "is not an endpoint"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_wrong_usage(tmp_path, name, why):
    cluster = RemoteCluster.__new__(RemoteCluster)
    cluster.home = tmp_path
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    from differential.harness import plain_environ, run

    result = run(cluster.job_command("word_count", cluster=name), plain_environ(environ), b"a\n")

    assert result.rc == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) <= 3
