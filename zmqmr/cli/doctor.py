"""zmqmr doctor: say whether this machine and this Python can run jobs, and what to do where they cannot."""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from zmqmr import hook
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, SettingsError
from zmqmr.settings import MIB, Settings

LIBRARIES = ("msgspec", "tornado", "zmq", "zstandard")
LOW_SPACE_BYTES = 1024 * MIB


@dataclass(frozen=True)
class Finding:
    """What one check found: `level` is ok, warning or failed; `advice` says what to do unless it is ok."""

    level: str
    text: str
    advice: str = ""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "doctor",
        help="check that this machine can run jobs",
        description="Check Python, the libraries, mrjob and its hook, GNU sort, the space for intermediate"
        " data and for records of jobs and the ZMQMR_ variables. Each finding that is not ok says what to"
        " do.",
        epilog="Exit status: 0 jobs can run, perhaps with warnings; 1 something failed.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each check; 0, or 1 when one of them failed."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": check_python,
        "libraries": check_libraries,
        "mrjob": check_mrjob,
        "hook": check_hook,
        "sort": check_sort,
        "space": check_space,
        "state": check_state,
        "settings": check_settings,
    }
    failed = False
    for name, check in checks.items():
        finding = check()
        failed = failed or finding.level == "failed"
        print(f"{finding.level:8} {name:10} {finding.text}")
        if finding.advice:
            print(f"{'':20}{finding.advice}")
    return EXIT_JOB_FAILED if failed else EXIT_OK


def check_python() -> Finding:
    """The interpreter and its version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not sys.platform.startswith("linux"):
        return Finding("warning", f"{version} on {sys.platform}", "zmqmr is made and tested for Linux.")
    return Finding("ok", f"{version}, {sys.executable}")


def check_libraries() -> Finding:
    """The libraries that zmqmr needs can be imported, and ZeroMQ has encryption."""
    versions = []
    for name in LIBRARIES:
        try:
            library = importlib.import_module(name)
        except ImportError as error:
            return Finding("failed", f"{name} cannot be imported: {error}", "Install zmqmr again with pip.")
        versions.append(f"{name} {getattr(library, '__version__', None) or library.version}")
    if not importlib.import_module("zmq").has("curve"):
        return Finding(
            "failed", "this ZeroMQ has no CURVE encryption", "Install pyzmq from its wheel, which has."
        )
    return Finding("ok", ", ".join(versions))


def check_mrjob() -> Finding:
    """mrjob can be imported by this Python."""
    try:
        import mrjob
        import mrjob.job
    except ImportError as error:
        advice = "Install zmqmr again with pip: it brings what mrjob needs on this Python."
        return Finding("failed", f"cannot be imported: {error}", advice)
    return Finding("ok", f"{mrjob.__version__}, {os.path.dirname(mrjob.__file__)}")


def check_hook() -> Finding:
    """A new process of this Python knows `-r zeromq`."""
    script = "import mrjob.options; print('zeromq' in mrjob.options._RUNNER_ALIASES)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode:
        cause = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return Finding("failed", f"mrjob cannot be imported in a new process: {cause[0]}", "See above.")
    if done.stdout.strip() == "True":
        return Finding("ok", f"python job.py -r {hook.ALIAS} works")
    text = f"python job.py -r {hook.ALIAS} is not known to mrjob; zmqmr-run job.py works"
    if os.environ.get("ZMQMR_NO_HOOK"):
        return Finding("warning", text, "Unset ZMQMR_NO_HOOK.")
    return Finding("warning", text, "Install zmqmr with pip, or import zmqmr.register in the job file.")


def check_sort() -> Finding:
    """GNU sort is on the PATH."""
    path = shutil.which("sort")
    if path is None:
        return Finding("failed", "there is no sort on the PATH", "Install GNU coreutils.")
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    version = (done.stdout.splitlines() or ["no version"])[0]
    if "GNU coreutils" not in version:
        return Finding("failed", f"{path} is not GNU sort: {version}", "Install GNU coreutils.")
    return Finding("ok", f"{version}, {path}")


def check_space() -> Finding:
    """There is room where the intermediate data of jobs go."""
    from zmqmr.data.places import base_directory

    return _check_room(base_directory(None), "for intermediate data", "Set TMPDIR to another drive.")


def check_state() -> Finding:
    """There is room where the records and logs of jobs, and repro bundles, are kept."""
    try:
        folder = os.path.dirname(Settings.from_environ().jobs_directory)
    except SettingsError:
        return Finding("warning", "not looked at, because a setting is wrong", "See below.")
    return _check_room(folder, "for records of jobs", "Set ZMQMR_STATE_DIRECTORY to another drive.")


def _check_room(folder: str, what: str, advice: str) -> Finding:
    """A folder, which may have to be made, can be written to and its drive has room."""
    existing = folder
    while not os.path.isdir(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as error:
        return Finding("failed", f"no file can be made in {existing}, {what}: {error.strerror}", advice)
    free = shutil.disk_usage(existing).free
    text = f"{free // MIB} MiB free in {folder}, {what}"
    return (
        Finding("warning", text, f"Free some space. {advice}")
        if free < LOW_SPACE_BYTES
        else Finding("ok", text)
    )


def check_settings() -> Finding:
    """The environment's ZMQMR_ variables are settings with usable values."""
    try:
        Settings.from_environ()
    except SettingsError as error:
        return Finding("failed", str(error), "See the README for the settings.")
    changed = sorted(name for name in os.environ if name.startswith("ZMQMR_"))
    return Finding("ok", ", ".join(changed) if changed else "all at their defaults")
