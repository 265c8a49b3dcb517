"""What a worker keeps of a job's shuffles: nothing that comes too late, or that the job does not have."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from core.strategies import SCRIPT, make_spec, make_step

from zmqmr.core.plan import plan_stages
from zmqmr.messages import FrameCount
from zmqmr.net.frames import CorruptFrame, FrameHeader
from zmqmr.settings import Settings
from zmqmr.worker.shuffles import Shuffles

TASK = "map-0-00000"
LINE = b"a\t1\n"
COUNT = FrameCount(0, 1, len(LINE), crc32(LINE))


@pytest.fixture
def shuffles(tmp_path: Path) -> Iterator[Shuffles]:
    """Those of a job with two partitions after its map stage, the only shuffle."""
    plans = plan_stages(make_spec(make_step(reducer=SCRIPT, partitions=2)))
    shuffles = Shuffles(plans, [str(tmp_path)], ("sort",), Settings(hold_bytes=0), 2)
    yield shuffles
    shuffles.close()


def frame(attempt: int = 1, version: int = 1, stage: int = 0, partition: int = 0) -> FrameHeader:
    return FrameHeader("job", stage, TASK, attempt, version, partition, 0, 0)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_frame_is_held_for_its_commit(shuffles: Shuffles, tmp_path: Path) -> None:
    shuffles.receive(frame(), LINE)
    assert files(tmp_path) == [f"{TASK}-1.held"]
    assert shuffles.of(0).holds(TASK, 1, [COUNT])


def test_a_frame_that_comes_after_the_end_of_its_stage_is_not_kept(
    shuffles: Shuffles, tmp_path: Path
) -> None:
    shuffles.receive(frame(), LINE)
    (ended,) = shuffles.end_stage(0, 3)
    shutil.rmtree(ended)
    assert list(tmp_path.iterdir()) == []
    for version in (1, 2, 3):
        shuffles.receive(frame(version, version), LINE)
        shuffles.refuse(frame(version, version), CorruptFrame(frame()))
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_needed_once_more_takes_frames_for_its_new_owners(shuffles: Shuffles) -> None:
    shuffles.end_stage(0, 3)
    shuffles.receive(frame(2, 4), LINE)
    assert shuffles.of(0).holds(TASK, 2, [COUNT])


def test_a_coordinator_that_forgot_the_end_of_a_stage_gets_its_records_with_the_second_commit(
    shuffles: Shuffles,
) -> None:
    shuffles.end_stage(0, 3)
    shuffles.receive(frame(2, 3), LINE)
    assert not shuffles.of(0).holds(TASK, 2, [COUNT]), "what a commit asks for"
    shuffles.receive(frame(3, 3), LINE)
    assert shuffles.of(0).holds(TASK, 3, [COUNT])


def test_a_frame_that_comes_after_its_attempt_was_discarded_is_not_kept(
    shuffles: Shuffles, tmp_path: Path
) -> None:
    """Nothing of the stage has come before."""
    shuffles.discard(TASK, 1)
    shuffles.receive(frame(1), LINE)
    shuffles.receive(frame(2), LINE)
    assert files(tmp_path) == [f"{TASK}-2.held"]


@pytest.mark.parametrize(("stage", "partition"), [(1, 0), (7, 0), (2**63, 0), (0, 2), (0, 2**63)])
def test_t4_a_frame_for_what_the_job_does_not_have_is_not_kept(
    shuffles: Shuffles, tmp_path: Path, stage: int, partition: int
) -> None:
    header = frame(stage=stage, partition=partition)
    shuffles.receive(header, LINE)
    shuffles.refuse(header, CorruptFrame(header))
    assert list(tmp_path.iterdir()) == []
