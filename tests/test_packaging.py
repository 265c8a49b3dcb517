"""What the distributions hold, what installing and uninstalling does, and what `make test` promises."""

import base64
import csv
import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from environment import OWN_PYTHON, ROOT, clean_environment

import zmqmr

START_FILES = {"zmqmr.pth", "zmqmr.start"}


@pytest.fixture
def archive(wheel):
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def metadata(archive: zipfile.ZipFile):
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(archive.read(name).decode())


def site_packages(python: Path) -> Path:
    return next((python.parent.parent / "lib").glob("python*/site-packages"))


def test_the_tests_run_against_the_installed_package():
    if os.environ.get("PYTHONPATH"):
        pytest.skip("PYTHONPATH leads to the source tree; use make test")

    assert ROOT / "zmqmr" not in Path(zmqmr.__file__).parents
    assert Path(zmqmr.__file__).parent.parent.name == "site-packages"


def test_the_tests_children_use_the_installed_package_too():
    if os.environ.get("PYTHONPATH"):
        pytest.skip("PYTHONPATH leads to the source tree; use make test")

    done = subprocess.run(
        [sys.executable, "-c", "import zmqmr; print(zmqmr.__file__)"], capture_output=True, text=True
    )

    assert done.stdout.strip() == zmqmr.__file__


def test_the_wheel_holds_the_package_and_the_start_files_and_nothing_else(archive, source):
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(source)) for path in (source / "zmqmr").rglob("*") if path.is_file()}

    assert names == package | START_FILES


def test_the_record_of_the_wheel_is_right(archive):
    (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
    listed = {
        name: (digest, size) for name, digest, size in csv.reader(archive.read(record).decode().splitlines())
    }

    assert set(listed) == set(archive.namelist())
    assert len(archive.namelist()) == len(set(archive.namelist()))
    for name in set(listed) - {record}:
        content = archive.read(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert listed[name] == (f"sha256={digest}", str(len(content))), name


def test_the_start_files_are_one_line_each_and_name_the_hook(archive):
    assert archive.read("zmqmr.pth") == b"import zmqmr.hook; zmqmr.hook.at_start()\n"
    assert archive.read("zmqmr.start") == b"zmqmr.hook:at_start\n"


def test_the_metadata_is_complete(archive):
    fields = metadata(archive)

    assert fields["Name"] == "zmqmr"
    assert fields["Version"] == zmqmr.__version__
    assert fields["Requires-Python"] == ">=3.10"
    assert fields["License"] == "Apache-2.0" or fields["License-Expression"] == "Apache-2.0"
    assert set(fields.get_all("Provides-Extra")) == {"dev", "ops", "testbed"}
    assert any(name.endswith("/LICENSE") for name in archive.namelist())


def test_the_source_distribution_holds_what_building_and_testing_need(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    needed = {"LICENSE", "CHANGELOG.md", "Makefile", "pyproject.toml", "setup.cfg", "docs/design.md"}
    needed |= {"build_support/backend.py", "build_support/zmqmr.pth", "build_support/zmqmr.start"}
    needed |= {"tests/conftest.py", "zmqmr/hook.py"}
    assert needed - names == set()


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installing_brings_the_hook_and_uninstalling_removes_it(kind, wheel, source, make_venv, tmp_path):
    what = ("--editable", str(source)) if kind == "editable" else (str(wheel),)
    python = make_venv(OWN_PYTHON, "--no-deps", *what)
    script = "import sys; print([type(finder).__module__ for finder in sys.meta_path].count('zmqmr.hook'))"

    def hooks() -> str:
        command = [str(python), "-c", script]
        done = subprocess.run(command, env=clean_environment(), cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.strip()

    site = site_packages(python)
    assert hooks() == "1"
    assert {path.name for path in site.glob("zmqmr.*")} == START_FILES

    subprocess.run([str(python), "-m", "pip", "uninstall", "-y", "-q", "zmqmr"], check=True, cwd=tmp_path)

    assert hooks() == "0"
    assert list(site.glob("*zmqmr*")) == []


def test_the_commands_are_installed(wheel, make_venv, tmp_path):
    python = make_venv(OWN_PYTHON, "--no-deps", str(wheel))

    for command in ("zmqmr-run", "zmqmr"):
        done = subprocess.run(
            [str(python.parent / command), "--version"], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, f"{command} {zmqmr.__version__}\n")


@pytest.mark.parametrize(("target", "wants"), [("demo", False), ("pytest", True)])
def test_the_demo_installs_the_package_alone_and_the_tests_all_that_they_need(target, wants, source):
    done = subprocess.run(["make", "-n", target], cwd=source, capture_output=True, text=True, check=True)

    assert "pip install --quiet dist/*.whl\n" in done.stdout
    assert ("[dev,testbed]" in done.stdout) is wants


@pytest.mark.parametrize(
    ("reason", "passes"), [("not present: python3.12", True), ("not today", False), ("no python3.12", False)]
)
@pytest.mark.parametrize("where", ["test", "module"])
def test_a_skip_that_is_not_allowed_fails_the_run_under_ci(reason, passes, where, tmp_path):
    skip = f"pytest.skip({reason!r}, allow_module_level=True)\n"
    body = "\ndef test_one():\n    pass\n"
    body += f"\ndef test_two():\n    {skip}" if where == "test" else ""
    (tmp_path / "test_some.py").write_text("import pytest\n" + body)
    if where == "module":
        (tmp_path / "test_other.py").write_text("import pytest\n" + skip)

    def run(ci: str) -> int:
        command = [sys.executable, "-m", "pytest", "-p", "conftest", "-q", str(tmp_path)]
        environment = clean_environment(CI=ci) | {"PYTHONPATH": str(ROOT / "tests")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode

    assert run("false") == 0
    assert run("true") == (0 if passes else 1)
