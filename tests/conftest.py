"""What every test shares: the distribution, built once a session, the Pythons, and the rule about skips."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from environment import PYTHONS, ROOT, clean_environment, find_python
from side_by_side import story

# Under CI a test may be skipped only with a reason that starts with one of these.
ALLOWED_SKIPS = (
    *(f"not present: python{version}" for version in PYTHONS),
    "needs root",
    "needs systemd-nspawn: apt-get install",
)

_refused_skips: list[str] = []


@pytest.hookimpl(optionalhook=True)  # of the plugin that has several processes
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from side_by_side import FileByFile

    config.option.loadscopereorder = False
    return FileByFile(config, log)


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that follow each other in one cluster begin first, because they take longest."""
    items.sort(key=lambda item: story(item.path) or "none")


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


@pytest.hookimpl
def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIPS):
        _refused_skips.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _refused_skips and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _refused_skips and os.environ.get("CI") == "true":
        terminalreporter.section("tests that must not be skipped under CI", red=True)
        for line in _refused_skips:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Repro bundles of failures that the tests provoke go with the tests' own files."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def temporary_directory() -> Iterator[None]:
    """What failed jobs keep goes with the tests too. Its path is short: sockets are made below it."""
    with TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as directory:
        os.environ["TMPDIR"], tempfile.tempdir = directory, None
        yield
        del os.environ["TMPDIR"]
        tempfile.tempdir = None


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, without what a build or a test leaves in it."""
    copy = tmp_path_factory.mktemp("source") / "zmqmr"
    left = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=left)
    return copy


@pytest.fixture(scope="session")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, env=clean_environment(), capture_output=True)
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    """The wheel."""
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def make_venv(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_venv(version, *what) makes a virtual environment, pip-installs `what`, and gives its python."""

    def make(version: str, *what: str) -> Path:
        folder = tmp_path_factory.mktemp(f"python{version}-")
        subprocess.run([find_python(version), "-m", "venv", str(folder)], check=True, env=clean_environment())
        python = folder / "bin" / "python"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *what]
        subprocess.run(pip, check=True, env=clean_environment())
        return python

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A drive of 6 MiB, empty."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can mount a small drive")
    folder = tmp_path / "drive"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
