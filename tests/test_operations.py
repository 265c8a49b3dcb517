"""The set-up of the operator's manual. The rest of its commands are run by the tests of clusters."""

import re
import shutil
import subprocess
from pathlib import Path

from environment import ROOT


def test_the_manuals_set_up_gets_ansible_and_zmqmr_into_one_environment(tmp_path: Path) -> None:
    text, _, _ = (ROOT / "docs/operations.md").read_text().partition("\n## ")
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert len(lines) == 2
    checkout = tmp_path / "zmqmr"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "tests", "build", "dist"))
    # All but the download: the packages are in this environment already.
    dry = [line.replace("pip install", "pip install --dry-run") for line in lines]
    script = "\n".join([*(f"{line} || exit" for line in dry), "command -v python", "echo in $AWS_REGION"])
    done = subprocess.run(["sh", "-c", script], cwd=checkout, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{checkout}/.venv/bin/python\nin eu-west-1\n"), done.stdout
    (would,) = [line.split() for line in done.stdout.splitlines() if line.startswith("Would install ")]
    for package in ("ansible", "boto3", "zmqmr", "pyzmq"):
        assert any(re.fullmatch(rf"{package}-\d.*", each) for each in would), would
