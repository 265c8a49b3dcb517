"""What a task finds around it: settings, files, arguments, its working directory."""

import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from differential.harness import JOBS, SMALL, Result, run_zmqmr

Compare = Callable[..., Result]


def test_settings_of_the_task_in_both_spellings(compare: Compare, text: Path) -> None:
    compare(
        "settings_of_task",
        ["--cmdenv", "GREETING=good day", "-D", "mapreduce.job.name=given"],
        [text],
        environ={"NOT_SET": ""},
    )


def test_each_record_sees_the_name_of_its_own_file(compare: Compare, tmp_path: Path) -> None:
    """Small files are packed together into one task; each still has its own name."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text("line\n" * number)
    compare("settings_of_task", inputs=[folder / f"{n}.txt" for n in range(12)], settings={})


def test_each_task_has_a_working_directory_of_its_own(compare: Compare, text: Path) -> None:
    compare("working_directory", inputs=[text])


def test_setup_commands_make_files_and_set_variables(compare: Compare, text: Path, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "made_for_setup.py").write_text("def shout(word):\n    return word.upper()\n")
    setup = [
        f"export PYTHONPATH=$PYTHONPATH:{modules}/#",
        "export FROM_SETUP=yes",
        "echo hello > made.txt",
    ]
    args = [word for command in setup for word in ("--setup", command)]
    compare("setup_work", args, [text], runner="local")


def test_setup_commands_see_uploaded_files(compare: Compare, text: Path, tmp_path: Path) -> None:
    (tmp_path / "maker.sh").write_text('echo "from the script" > "$1"\n')
    (tmp_path / "module.txt").write_text("def shout(word):\n    return word.upper()\n")
    setup = [
        f"sh {tmp_path}/maker.sh# made.txt",
        f"cat {tmp_path}/module.txt# > made_for_setup.py",
        "export PYTHONPATH=$PWD:$PYTHONPATH",
    ]
    args = [word for command in setup for word in ("--setup", command)]
    compare("setup_work", args, [text], runner="local", environ={"FROM_SETUP": "from the user"})


def test_modules_given_with_py_files(compare: Compare, text: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("packed_module.py", "def shout(word):\n    return word.upper()\n")
    compare("py_files_work", ["--py-files", tmp_path / "packed.zip"], [text], runner="local")


def _archive(path: Path) -> Path:
    inside = path.parent / "inside.txt"
    inside.write_text("in the archive")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inside, "inside.txt")
    return path


def test_files_folders_and_archives_given_as_switches(compare: Compare, text: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("a plain file")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "b.txt").write_text("deep in a folder")
    uploads = [
        "--files",
        f"{tmp_path}/plain.txt,{tmp_path}/plain.txt#re named.txt",
        "--dirs",
        f"{tmp_path}/folder#other",
        "--archives",
        f"{_archive(tmp_path / 'things.tar.gz')}#things",
    ]
    names = ["plain.txt", "re named.txt", "other/deep/b.txt", "things/inside.txt"]
    wants = [word for name in names for word in ("--want", name)]
    compare("reads_uploads", [*uploads, *wants], [text])


def test_files_folders_and_archives_that_the_class_declares(
    compare: Compare, text: Path, tmp_path: Path
) -> None:
    job = tmp_path / "declares_uploads.py"
    job.write_text((JOBS / "declares_uploads.py").read_text())
    (tmp_path / "plain.txt").write_text("a plain file")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "a.txt").write_text("in a folder")
    (tmp_path / "folder" / "deep" / "b.txt").write_text("deep in a folder")
    _archive(tmp_path / "things.tar.gz")
    compare(job, inputs=[text])


def test_arguments_of_the_job_reach_its_tasks(compare: Compare, text: Path, tmp_path: Path) -> None:
    words = text.read_text().split()
    (tmp_path / "stop words.txt").write_text(" ".join(words[:40]))
    mark = 'it\'s a $HOME "label" --with; odd * signs \u00e9'
    args = ["--stop-list", tmp_path / "stop words.txt", "--times", "3", "--loud", "--mark", mark]
    compare("file_arg", args, [text])


def test_a_job_that_hands_on_its_runner_learns_zeromq_or_the_alias(text: Path, tmp_path: Path) -> None:
    plain = run_zmqmr("runner_arg", [], [text], tmp_path / "plain", environ=SMALL)
    assert plain.rc == 0, plain.stderr
    assert [line.split(b"\t")[0] for line in plain.lines] == [b'"zeromq"']
    alias = ["--task-runner-alias", "hadoop"]
    hidden = run_zmqmr("runner_arg", alias, [text], tmp_path / "hidden", environ=SMALL)
    assert hidden.rc == 0, hidden.stderr
    assert [line.split(b"\t")[0] for line in hidden.lines] == [b'"hadoop"']


@pytest.mark.parametrize("python_bin", ["--python-bin", "--task-python-bin"])
def test_tasks_run_with_another_interpreter(
    compare: Compare, text: Path, tmp_path: Path, python_bin: str
) -> None:
    wrapper = tmp_path / "my-python"
    wrapper.write_text(f'#!/bin/sh\nexport MY_PYTHON=yes\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    job = tmp_path / "says_python.py"
    job.write_text(
        "import os\n\nfrom mrjob.job import MRJob\n\n\nclass Job(MRJob):\n"
        "    def mapper(self, _, line):\n        yield os.environ.get('MY_PYTHON'), 1\n\n"
        "    def reducer(self, key, ones):\n        yield key, sum(ones)\n\n\n"
        "if __name__ == '__main__':\n    Job.run()\n"
    )
    result = compare(job, [python_bin, wrapper], [text], runner="local")
    assert [line.split(b"\t")[0] for line in result.lines] == [b'"yes"']
