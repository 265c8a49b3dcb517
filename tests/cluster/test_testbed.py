"""The testbed itself: nothing of it outlives the tests."""

import subprocess
import sys
from pathlib import Path

import pytest
from cluster.jobs import until
from environment import ROOT
from testbed.commands import missing, run

UP = """
from testbed.bed import Testbed
bed = Testbed.new()
bed.up()
print(bed.folder, flush=True)
input()
"""


def test_a_testbed_whose_process_is_killed_is_taken_down() -> None:
    if reason := missing():
        pytest.skip(reason)
    process = subprocess.Popen(
        [sys.executable, "-c", UP], cwd=ROOT / "tests",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    try:
        assert str(folder) in run("ps", "-eww", "-o", "args")
        assert folder.name in run("ip", "netns", "list")
    finally:
        process.kill()
        process.communicate()

    until(lambda: not folder.exists(), "its folder is left", timeout=60)
    until(lambda: str(folder) not in run("ps", "-eww", "-o", "args"), "a process is left")
    assert folder.name not in run("ip", "netns", "list").replace("-", " ").split()
