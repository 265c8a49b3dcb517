"""A job at its agent: when it is opened, and what the agent's loop never waits for."""

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from core.strategies import MAP_REDUCE, make_spec, make_step
from faults.nemesis import children, is_alive
from process.places import wait_until

from zmqmr.core.keys import Keys
from zmqmr.core.plan import plan_stages
from zmqmr.data.bundles import pack
from zmqmr.data.spools import SpoolWriter
from zmqmr.errors import Corrupt
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    Commit,
    InputFile,
    JobSpec,
    Launch,
    Opened,
    OpenFailed,
    Piece,
    Split,
    Step,
    Substep,
    encode,
)
from zmqmr.settings import Settings
from zmqmr.worker.hosted import HostedJob
from zmqmr.worker.surroundings import surroundings

MIB = 1024**2
JOB = (
    "from mrjob.job import MRJob\nclass Job(MRJob):\n"
    "    def mapper(self, _, line):\n        yield line, 1\n"
    "    def reducer(self, key, values):\n        yield key, sum(values)\n"
)
DONE = AttemptDone("old", "map-0-00000", 1, 1, {})


@dataclass
class Hosted:
    """A job as an agent holds it, and what it has told the coordinator."""

    job: HostedJob
    said: list[Any] = field(default_factory=list)

    def turn(self) -> None:
        """What the agent's loop does when something can be read, or in a while."""
        self.job.serve(set(select.select(self.job.descriptors, [], [], 0.05)[0]))

    def await_said(self, kind: type) -> Any:
        def said() -> bool:
            self.turn()
            return any(isinstance(message, kind) for message in self.said)

        wait_until(said, lambda: str(self.said))
        return next(message for message in self.said if isinstance(message, kind))


class Hosting:
    """Opens jobs below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.opened: list[Hosted] = []
        self.before = children(os.getpid())
        (folder / "job.py").write_text(JOB)
        self._bundle = pack({"job.py": str(folder / "job.py")}, {}, str(folder))
        (folder / "out").mkdir()

    def spec(self, **others: Any) -> JobSpec:
        path, digest = self._bundle
        steps = others.pop("steps", (MAP_REDUCE,))
        return make_spec(
            *steps, output_dir=str(self.folder / "out"), bundle=path, bundle_sha256=digest, **others
        )

    def open(self, spec: JobSpec, *drives: str) -> Hosted:
        """`drives`: the agent's directories."""
        said: list[Any] = []
        chosen = drives or (str(self.folder / "data"),)
        job = HostedJob(spec, chosen, Settings(), 1, 7, "ipc://own", said.append, None)
        self.opened.append(Hosted(job, said))
        job.open()
        return self.opened[-1]


@pytest.fixture
def hosting(tmp_path: Path) -> Iterator[Hosting]:
    hosting = Hosting(tmp_path)
    yield hosting
    for hosted in hosting.opened:
        hosted.job.close().join()
    assert not list(tmp_path.glob("data/*"))


def earlier_spool(spec: JobSpec, report: bytes | None = None) -> Path:
    """Leave the spool of the first map task of an earlier run; its report."""
    key = Keys(spec, plan_stages(spec), surroundings()).of(0, 0)
    shelf = Path(spec.reuse)
    shelf.mkdir(exist_ok=True)
    writer = SpoolWriter(str(shelf / f"{key}.spool"))
    writer.add([(0, b'"a"\t1\n')])
    writer.close()
    path = shelf / f"{key}.done"
    if report is not None:
        path.write_bytes(report)
    return path


def test_spools_are_taken_over_beside_the_agents_loop_and_the_job_is_opened_then(hosting: Hosting) -> None:
    """The report of the spool is a pipe: whoever reads it waits until the test writes."""
    spec = hosting.spec(reuse=str(hosting.folder / "earlier"))
    path = earlier_spool(spec)
    os.mkfifo(path)
    hosted = hosting.open(spec)
    for _ in range(5):
        hosted.turn()
    assert hosted.said == [], "it is opened before it is known what is there"
    hosted.job.open()
    assert hosted.said == []
    body = encode(DONE)
    path.write_bytes(crc32(body).to_bytes(4, "little") + body)
    assert hosted.await_said(Opened) == Opened("job", 7, ("map-0-00000",))
    hosted.job.open()
    assert hosted.said.count(Opened("job", 7, ("map-0-00000",))) == 2, "a coordinator that asks again"


def test_a_job_that_cannot_be_opened_now_is_opened_when_it_is_asked_again(hosting: Hosting) -> None:
    spec = hosting.spec()
    os.rename(spec.bundle, f"{spec.bundle}.away")
    hosted = hosting.open(spec)
    failure = hosted.await_said(OpenFailed).failure
    assert spec.bundle in failure.reason and not failure.fatal
    os.rename(f"{spec.bundle}.away", spec.bundle)
    for _ in range(3):
        hosted.turn()
    assert not any(isinstance(message, Opened) for message in hosted.said)
    hosted.job.open()
    assert hosted.await_said(Opened) == Opened("job", 7, ())


def test_a_bundle_that_is_damaged_is_so_for_all_workers(hosting: Hosting) -> None:
    spec = hosting.spec()
    with open(spec.bundle, "ab") as file:
        file.write(b"more")
    assert hosting.open(spec).await_said(OpenFailed).failure.fatal


def test_f18_a_full_drive_is_no_reason_to_fail_the_job(hosting: Hosting, small_disk: Path) -> None:
    """The bundle does not fit on it."""
    (hosting.folder / "large").write_bytes(bytes(8 * MIB))
    path, digest = pack({"large": str(hosting.folder / "large")}, {}, str(hosting.folder))
    spec = msgspec.structs.replace(hosting.spec(), bundle=path, bundle_sha256=digest)
    hosted = hosting.open(spec, str(small_disk))
    failure = hosted.await_said(OpenFailed).failure
    assert "no space left" in failure.reason and not failure.fatal
    assert not [each for each in small_disk.rglob("*") if each.is_file()], "what did not fit is left"


# --- its executor ------------------------------------------------------------------------------


def launch(hosted: Hosted, attempt: int = 1, **others: Any) -> Launch:
    """The launch of the only map task, whose input is the job file."""
    path = hosted.job.spec.bundle
    piece = Piece(InputFile(path, os.path.getsize(path), os.stat(path).st_mtime_ns), 0, 1)
    values: dict[str, Any] = {
        "job": "job",
        "task": "map-0-00000",
        "attempt": attempt,
        "stage": 0,
        "number": 0,
        "links": ((0, "mapper"),),
        "combine": False,
        "split": Split((piece,)),
        "source": None,
        "partitions": 1,
        "owners": ("ipc://own",),
        "tasks": 1,
    }
    return Launch(**values | others)


def test_a_job_that_ends_while_its_executor_is_stopped_keeps_the_agents_loop_free(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of the same name is opened meanwhile: one that begins anew."""
    monkeypatch.setattr("zmqmr.worker.spawn._END_SECONDS", 600.0)
    spec = hosting.spec()
    hosted = hosting.open(spec)
    hosted.await_said(Opened)
    (executor,) = [pid for pid in children(os.getpid()) if pid not in hosting.before]
    os.kill(executor, signal.SIGSTOP)
    ending = hosted.job.close()
    again = hosting.open(spec)
    again.await_said(Opened)
    assert ending.is_alive(), "nobody has waited for the executor"
    os.kill(executor, signal.SIGCONT)
    ending.join()
    assert not is_alive(executor)
    assert os.path.exists(os.path.join(again.job.work, "job.py"))
    again.job.launch(launch(again))
    assert again.await_said(AttemptDone).task == "map-0-00000"


def test_an_executor_that_cannot_be_started_is_started_when_it_can(hosting: Hosting) -> None:
    hosted = hosting.open(hosting.spec())
    hosted.await_said(Opened)
    (executor,) = [pid for pid in children(os.getpid()) if pid not in hosting.before]
    directory = hosted.job.directory
    os.rename(directory, f"{directory}.away")
    os.kill(executor, signal.SIGKILL)
    wait_until(lambda: (hosted.turn(), hosted.job._start_again_at)[1] is not None)
    os.rename(f"{directory}.away", directory)
    hosted.job.launch(launch(hosted))
    assert hosted.await_said(AttemptDone).attempt == 1


def test_a_task_that_waits_for_a_process_is_not_charged_when_that_is_killed(hosting: Hosting) -> None:
    """It is launched before the executor has loaded the job."""
    (hosting.folder / "job.py").write_text("import time; time.sleep(0.3)\n" + JOB)
    path, digest = pack({"job.py": str(hosting.folder / "job.py")}, {}, str(hosting.folder))
    hosted = hosting.open(msgspec.structs.replace(hosting.spec(), bundle=path, bundle_sha256=digest))
    hosted.await_said(Opened)
    hosted.job.launch(launch(hosted))
    (executor,) = [pid for pid in children(os.getpid()) if pid not in hosting.before]
    os.kill(executor, signal.SIGKILL)
    assert hosted.await_said(AttemptDone).attempt == 1
    assert not any(isinstance(message, AttemptFailed) for message in hosted.said)


# --- what is not here any more -----------------------------------------------------------------


@pytest.mark.parametrize("steps", [(MAP_REDUCE,), (make_step(),)], ids=["a spool", "a part file"])
def test_output_that_is_not_here_is_not_committed(hosting: Hosting, steps: tuple[Step, ...]) -> None:
    hosted = hosting.open(hosting.spec(steps=steps))
    hosted.await_said(Opened)
    with pytest.raises(Corrupt, match="not here any more"):
        hosted.job.try_commit(Commit("job", "map-0-00000", 1, 0, ()))


def test_a_part_file_that_is_not_here_is_made_again(hosting: Hosting) -> None:
    steps = (make_step(), make_step(Substep("command", ("cat",))))
    hosted = hosting.open(hosting.spec(steps=steps))
    hosted.await_said(Opened)
    values = {"task": "map-1-00000", "stage": 1, "links": ((1, "mapper"),), "source": 0, "split": None}
    hosted.job.launch(launch(hosted, partitions=0, owners=(), **values))
    assert hosted.await_said(AttemptFailed).failure.damaged
