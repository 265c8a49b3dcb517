"""From a real job and its switches to the JobSpec that the engine gets."""

import importlib.util
import io
import os
import sys
import tarfile
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from zmqmr import hook
from zmqmr.errors import InputError, UsageError
from zmqmr.messages import JobSpec, Partitioner, Substep
from zmqmr.settings import Settings

hook.install()

PLAIN = """
    def mapper(self, _, line): yield line, 1
    def reducer(self, key, values): yield key, sum(values)
"""
TWO_STEPS = """
    def r(self, k, v): yield k, 1
    def steps(self): return [MRStep(reducer=self.r), MRStep(reducer=self.r)]
"""
Make = Callable[..., JobSpec]


@pytest.fixture
def runner_of(tmp_path: Path) -> Any:
    """Makes the runner of a job class with the given body, for the given switches."""
    (tmp_path / "in.txt").write_bytes(b"a b\n" * 100)

    def make(body: str = PLAIN, *args: str, stdin: bytes = b"") -> Any:
        script = tmp_path / "the_job.py"
        script.write_text(
            "from mrjob.job import MRJob\nfrom mrjob.step import *\nclass Job(MRJob):\n"
            + textwrap.indent(textwrap.dedent(body), "    ")
        )
        module_spec = importlib.util.spec_from_file_location("the_job", script)
        assert module_spec and module_spec.loader
        module = importlib.util.module_from_spec(module_spec)
        sys.modules["the_job"] = module
        module_spec.loader.exec_module(module)
        conf = () if "-c" in args else ("--no-conf",)
        local = ("--local-tmp-dir", str(tmp_path / "tmp"))
        job = module.Job(
            ["-r", "zeromq", *conf, *local, *args, *([] if stdin else [str(tmp_path / "in.txt")])]
        )
        job.sandbox(stdin=io.BytesIO(stdin))
        return job.make_runner()

    return make


@pytest.fixture
def spec_of(runner_of: Any) -> Make:
    """As `runner_of`, up to the JobSpec."""

    def make(*args: str, **kwargs: Any) -> JobSpec:
        settings = kwargs.pop("settings", Settings())
        runner = runner_of(*args, **kwargs)
        with ExitStack() as undo:
            spec: JobSpec = runner._prepare(settings, undo)[0]
            undo.pop_all()
        return spec

    return make


def names(spec: JobSpec) -> dict[str, bytes]:
    with tarfile.open(spec.bundle) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_a_plain_job(spec_of: Make, tmp_path: Path):
    spec = spec_of()
    (step,) = spec.steps
    assert (step.mapper, step.combiner, step.reducer) == (Substep("script"), None, Substep("script"))
    assert (step.partitions, step.partitioner, step.compress) == (1, Partitioner(), "")
    assert (spec.script, spec.label, spec.input_mode, spec.setup_script) == (
        "the_job.py",
        "the_job",
        "lines",
        "",
    )
    assert (spec.task_python, spec.task_args, spec.python_path) == ((), (), ())
    assert (spec.sh, spec.sort) == (("/bin/sh", "-ex"), ("sort",))
    assert [p.file.path for s in spec.splits for p in s.pieces] == [str(tmp_path / "in.txt")]
    assert names(spec) == {"file/the_job.py": (tmp_path / "the_job.py").read_bytes()}
    assert os.path.isdir(spec.output_dir) and not os.listdir(spec.output_dir)


def test_commands_and_filters(spec_of: Make):
    spec = spec_of(
        """
        def steps(self):
            return [MRStep(mapper_cmd="tr 'a b' x", combiner_cmd="cat",
                           reducer_pre_filter="grep -v 'x y' | cat", reducer=lambda self, k, v: None)]
        """
    )
    (step,) = spec.steps
    assert step.mapper == Substep("command", ("tr", "a b", "x"))
    assert step.combiner == Substep("command", ("cat",))
    assert step.reducer == Substep("script", pre_filter="grep -v 'x y' | cat")


def test_a_later_step_without_a_mapper_has_none(spec_of: Make):
    spec = spec_of(
        """
        def one(self, k, v): yield k, v
        def steps(self): return [MRStep(reducer=self.one), MRStep(reducer=self.one), MRStep(mapper=self.one)]
        """
    )
    assert [(bool(s.mapper), bool(s.reducer)) for s in spec.steps] == [
        (True, True),
        (False, True),
        (True, False),
    ]


def test_each_step_has_its_own_jobconf_and_the_command_line_is_below_it(spec_of: Make):
    spec = spec_of(
        """
        JOBCONF = {"mapreduce.job.reduces": 3, "flag": True, "gone": None}
        def red(self, k, v): yield k, list(v)
        def steps(self):
            return [MRStep(reducer=self.red), MRStep(reducer=self.red, jobconf={"mapred.reduce.tasks": "5"})]
        """,
        "-D", "mapreduce.job.maps=4", "-D", "my.key=x", "-D", "mapreduce.job.name=My job",
        settings=Settings(split_floor_bytes=1),
    )  # fmt: skip
    first, second = spec.steps
    assert (first.partitions, first.jobconf["flag"], first.jobconf["my.key"]) == (3, "true", "x")
    assert "gone" not in first.jobconf
    assert second.jobconf["mapred.reduce.tasks"] == "5"
    assert (len(spec.splits), spec.label) == (4, "My job")


def test_compression_is_for_the_last_step(spec_of: Make):
    spec = spec_of(TWO_STEPS, "-D", "mapred.output.compress=true")
    assert [step.compress for step in spec.steps] == ["", "gz"]


def test_sort_values_and_partitioner(spec_of: Make):
    spec = spec_of("SORT_VALUES = True\n" + textwrap.dedent(PLAIN))
    assert spec.steps[0].partitioner == Partitioner()
    assert spec.steps[0].jobconf["stream.num.map.output.key.fields"] == "2"
    by_fields = spec_of(
        "PARTITIONER = 'org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner'\n" + textwrap.dedent(PLAIN),
        "-D", "mapreduce.partition.keypartitioner.options=-k1,2",
    )  # fmt: skip
    assert by_fields.steps[0].partitioner == Partitioner("fields", 1, 2)


def test_raw_mappers_get_whole_files_and_no_manifest(spec_of: Make):
    spec = spec_of("def mapper_raw(self, path, uri): yield path, 1", "-D", "mapreduce.job.maps=4")
    assert spec.input_mode == "files"
    assert len(spec.splits) == 1
    assert list(names(spec)) == ["file/the_job.py"]


def test_the_nline_input_format_cuts_by_lines(spec_of: Make):
    body = "HADOOP_INPUT_FORMAT = 'org.apache.hadoop.mapred.lib.NLineInputFormat'\n" + textwrap.dedent(PLAIN)
    spec = spec_of(body, "-D", "mapreduce.input.lineinputformat.linespermap=30")
    assert (spec.input_mode, len(spec.splits)) == ("nlines", 4)


def test_standard_input_becomes_a_file(spec_of: Make):
    spec = spec_of(PLAIN, stdin=b"x\ny")
    ((piece,),) = [split.pieces for split in spec.splits]
    assert Path(piece.file.path).read_bytes() == b"x\ny\n"


def test_switches_of_the_job_and_its_files_reach_the_tasks(spec_of: Make, tmp_path: Path):
    (tmp_path / "stop.txt").write_text("the")
    body = """
        def configure_args(self):
            super().configure_args()
            self.add_file_arg("--stop")
            self.add_passthru_arg("--times", type=int)
            self.pass_arg_through("--runner")
        """ + textwrap.indent(textwrap.dedent(PLAIN), " " * 8)
    spec = spec_of(body, "--stop", f"{tmp_path}/stop.txt#s.txt", "--times", "3")
    assert spec.task_args == ("-r", "zeromq", "--stop", "s.txt", "--times", "3")
    assert names(spec)["file/s.txt"] == b"the"
    disguised = spec_of(body, "--task-runner-alias", "hadoop")
    assert disguised.task_args == ("-r", "zeromq", "--runner", "hadoop")


def test_files_archives_and_directories_are_packed(spec_of: Make, tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("x")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "d/x", "y")
    spec = spec_of(
        PLAIN, "--files", f"{tmp_path}/in.txt#data", "--archives", f"{tmp_path}/a.tar.gz#arch",
        "--dirs", f"{tmp_path}/d#dir",
    )  # fmt: skip
    assert list(names(spec)) == ["file/data", "file/the_job.py", "archive/arch", "archive/dir"]
    conf = spec.steps[0].jobconf
    assert conf["mapreduce.job.cache.files"] == f"{tmp_path}/in.txt#data,{tmp_path}/the_job.py#the_job.py"
    assert conf["mapreduce.job.cache.archives"].startswith(f"{tmp_path}/a.tar.gz#arch,")


def test_setup_runs_in_mrjobs_script_and_its_lock_stays_in_the_working_directory(
    spec_of: Make, tmp_path: Path
):
    (tmp_path / "lib.zip").write_bytes(b"zip")
    spec = spec_of(PLAIN, "--setup", f". {tmp_path}/in.txt#env.sh", "--py-files", f"{tmp_path}/lib.zip")
    script = names(spec)["file/" + spec.setup_script].decode()
    assert ". $__mrjob_PWD/env.sh" in script
    assert "/tmp/wrapper" not in script
    assert 'exec 9>"$__mrjob_PWD/.wrapper.lock"' in script
    assert "PYTHONPATH" not in script
    assert spec.python_path == ("lib.zip",)


def test_only_py_files_need_no_setup_script(spec_of: Make, tmp_path: Path):
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(b"zip")
    spec = spec_of(PLAIN, "--py-files", f"{tmp_path}/a.zip,{tmp_path}/b.zip")
    assert (spec.setup_script, spec.python_path) == ("", ("b.zip", "a.zip"))


def test_mrjob_is_packed_only_when_it_is_asked_for(spec_of: Make):
    assert spec_of(PLAIN, "--bootstrap-mrjob").python_path == ("mrjob.zip",)
    assert spec_of(PLAIN, "--no-bootstrap-mrjob").python_path == ()


def test_another_python_is_for_the_tasks_and_this_one_is_no_other(spec_of: Make, tmp_path: Path):
    other = tmp_path / "bin" / "python"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    assert spec_of(PLAIN, "--python-bin", sys.executable).task_python == ()
    # Links to this one, but is the interpreter of another environment.
    assert spec_of(PLAIN, "--task-python-bin", str(other)).task_python == (str(other),)
    assert spec_of(PLAIN, "--python-bin", f"{sys.executable} -v").task_python == (sys.executable, "-v")


def test_binaries(spec_of: Make):
    spec = spec_of(PLAIN, "--sh-bin", "/bin/bash -e", "--sort-bin", "/usr/bin/sort --parallel 1")
    assert (spec.sh, spec.sort) == (("/bin/bash", "-e"), ("/usr/bin/sort", "--parallel", "1"))


def test_cmdenv_of_config_and_command_line_are_joined_for_paths(spec_of: Make, tmp_path: Path):
    conf = tmp_path / "mrjob.conf"
    conf.write_text("runners: {zeromq: {cmdenv: {PYTHONPATH: /conf, X: '1'}}, emr: {cmdenv: {X: '9'}}}")
    spec = spec_of(PLAIN, "-c", str(conf), "--cmdenv", "PYTHONPATH=/line", "--cmdenv", "Y=2")
    assert spec.cmdenv == {"PYTHONPATH": "/line:/conf", "X": "1", "Y": "2"}


@pytest.mark.parametrize(
    "args", [("-D", "a=b\0c"), ("--cmdenv", "A=\0"), ("--cmdenv", "=x"), ("-D", "mapreduce.job.reduces=0")]
)
def test_what_no_task_could_be_given_is_refused(spec_of: Make, args: tuple[str, ...]):
    with pytest.raises(UsageError, match=r"environment variable|has a reducer"):
        spec_of(PLAIN, *args)


@pytest.mark.parametrize("option", ["--files", "--py-files", "--archives"])
def test_a_file_that_is_missing_or_elsewhere_is_named(spec_of: Make, option: str):
    for path in ("/no/such/file", "s3://bucket/file"):
        with pytest.raises(UsageError, match=path):
            spec_of(PLAIN, option, path)


def test_options_of_other_runners_give_one_warning(runner_of: Any, tmp_path: Path, caplog: Any):
    conf = tmp_path / "mrjob.conf"
    conf.write_text("runners: {zeromq: {region: eu-west-1, instance_type: m5.large, no_such_option: 1}}")
    runner_of(PLAIN, "-c", str(conf), "--libjars", "x.jar", "--spark-master", "yarn")
    said = [record.message for record in caplog.records if "ignored by" in record.message]
    assert said == ["ignored by zmqmr: instance_type, libjars, region, spark_master"]
    assert "Unexpected option no_such_option" in caplog.text


def test_an_unknown_partitioner_or_format_gives_one_warning(spec_of: Make, caplog: Any):
    body = "PARTITIONER = 'a.B'\nHADOOP_INPUT_FORMAT = 'c.D'\nHADOOP_OUTPUT_FORMAT = 'e.F'\n"
    spec_of(body + textwrap.dedent(PLAIN))
    (said,) = [record.message for record in caplog.records if "need Hadoop" in record.message]
    assert said.endswith("input format c.D, output format e.F, partitioner a.B")


@pytest.mark.parametrize(
    ("step", "runner"),
    [
        ("SparkStep(spark=lambda i, o: None)", "-r spark"),
        ("SparkScriptStep('x.py')", "-r spark"),
        ("JarStep('x.jar')", "-r hadoop"),
    ],
)
def test_steps_for_spark_and_hadoop_are_refused_with_the_runner_to_use(
    runner_of: Any, step: str, runner: str
):
    with pytest.raises(UsageError, match=f"step 1 is a .* use {runner}"):
        runner_of(f"def steps(self): return [{step}]")


@pytest.mark.parametrize(
    "args",
    [
        ("--task-runner-alias", "nonsense"),
        ("--num-cores", "0"),
        ("--num-cores", "100000"),
        ("--hadoop-version", "new"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(runner_of: Any, args: tuple[str, ...]):
    with pytest.raises(UsageError, match=args[1]):
        runner_of(PLAIN, *args)


def test_a_missing_input_is_refused_before_the_output_directory_is_made(spec_of: Make, tmp_path: Path):
    with pytest.raises(InputError, match="no-such"):
        spec_of(PLAIN, "-o", str(tmp_path / "out"), "/no-such/input")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "tmp").exists()


def test_an_output_directory_in_use_is_refused_before_standard_input_is_read(runner_of: Any, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("")
    runner = runner_of(PLAIN, "-o", str(tmp_path / "out"), stdin=b"x\n")
    with pytest.raises(UsageError, match="not empty"):
        runner.run()
    assert runner._stdin.read() == b"x\n"


def test_outputs_that_contain_each_other_are_refused(spec_of: Make, tmp_path: Path):
    with pytest.raises(UsageError, match="must not contain each other"):
        spec_of(TWO_STEPS, "-o", f"{tmp_path}/o", "--step-output-dir", f"{tmp_path}/o/steps")
    spec = spec_of(TWO_STEPS, "-o", f"{tmp_path}/o", "--step-output-dir", f"{tmp_path}/steps")
    assert (spec.step_output_dir, os.listdir(tmp_path / "steps")) == (f"{tmp_path}/steps", ["0000"])


def test_the_temporary_directory_is_private_and_goes_with_a_failed_construction(
    runner_of: Any, tmp_path: Path
):
    runner = runner_of()
    assert os.stat(runner._get_local_tmp_dir()).st_mode & 0o777 == 0o700
    runner.cleanup()
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match="won't work because"):
        runner_of(PLAIN, "--dirs", f"{tmp_path}/d#x", "--files", f"{tmp_path}/in.txt#x")
    assert os.listdir(tmp_path / "tmp") == []
