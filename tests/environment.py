"""The repository, the Pythons of this machine, and an environment for child processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OWN_PYTHON = "{}.{}".format(*sys.version_info[:2])


def find_python(version: str) -> str:
    """The interpreter of a Python version; the test is skipped where there is none, but never for its own."""
    if version == OWN_PYTHON:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    candidates = [on_path] if on_path else []
    candidates += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    script = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", script], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return candidate
    pytest.skip(f"not present: python{version}")


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would lead a child to the source tree or to other settings of zmqmr."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ZMQMR_") and name not in ("PYTHONPATH", "MRJOB_CONF")
    }
    return {**kept, **changes}
