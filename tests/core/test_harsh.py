"""Rows F7, F11-F15 in simulation: the promises hold where coordinators die and links are cut.

`make simulate` runs many thousand seeds of every kind of world.
"""

from pathlib import Path

import pytest
from core import simulate
from core.harsh import Misfortune, check, live

SEEDS = range(24)
CALM = Misfortune(worker_deaths=0, coordinator_deaths=0, cuts=0, attempts_fail=False)


@pytest.mark.parametrize("name", simulate.WORLDS)
def test_f7_the_promises_hold_whatever_the_seed(name: str) -> None:
    lives = [live(seed, simulate.WORLDS[name]) for seed in SEEDS]
    if name == "only coordinators die":
        assert sum(world.lives for world in lives) > len(SEEDS), "hardly a coordinator died"


def test_f7_they_hold_for_many_workers_too() -> None:
    world = live(7, simulate.WORLDS["only coordinators die"], workers=60, splits=600)
    assert world.lives and len(world.agents) == 60


def test_the_same_seed_gives_the_same_world() -> None:
    worlds = [live(11, simulate.WORLDS["cuts"]) for _ in range(2)]
    assert worlds[0].journal == worlds[1].journal


def test_a_broken_promise_is_seen() -> None:
    world = live(3, CALM)
    stage = max(stage for stage, _ in world.output)
    number = next(number for at, number in world.output if at == stage and world.output[at, number])
    world.output[stage, number].pop()
    splits = len({piece for job in world.spec.splits for piece in job.pieces})
    with pytest.raises(AssertionError, match="1: the output is wrong"):
        check(world, world.ended[0], splits)


def test_a_seed_that_fails_is_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr("core.harsh.LONGEST", 0.5)  # no job is as quick as that
    monkeypatch.setattr("sys.argv", ["simulate", "--seeds", "6", "--keep", str(kept)])
    assert simulate.main() == 1
    lines = kept.read_text().splitlines()
    assert lines and all(line.startswith("--seed ") and "the job hangs" in line for line in lines)
    assert f"6 seeds from 0, {len(lines)} failed" in capsys.readouterr().out
