"""What becomes of committed output when an agent ends with a job still open."""

import os
from pathlib import Path

from core.strategies import make_spec

from zmqmr.data.bundles import pack
from zmqmr.settings import Settings
from zmqmr.worker.agent import Agent
from zmqmr.worker.hosted import HostedJob

JOB = (
    "from mrjob.job import MRJob\nclass Job(MRJob):\n    def mapper(self, _, line):\n        yield line, 1\n"
)


def end_with_an_open_job(place: Path, goodbye: bytes) -> Path:
    """An agent that has committed a part of a job that is still open, then ends; the part's path."""
    script = place / "job.py"
    script.write_text(JOB)
    bundle, digest = pack({"job.py": str(script)}, {}, str(place))
    output = place / "out"
    output.mkdir(exist_ok=True)
    spec = make_spec(output_dir=str(output), bundle=bundle, bundle_sha256=digest)
    lifeline, end = os.pipe()
    os.write(end, goodbye)
    os.close(end)
    agent = Agent(
        name="w",
        coordinator=f"ipc://{place}/coordinator",
        shuffle=f"ipc://{place}/shuffle",
        directory=str(place / "data"),
        slots=1,
        settings=Settings(),
        lifeline=lifeline,
        spare=None,
    )
    job = HostedJob(spec, [str(place / "data")], Settings(), 1, agent.epoch, "", agent.send, None)
    aside, part = Path(job._kept.place_aside(job._plans[0], "map-0-00000-1")), output / "part-00000"
    aside.write_text("committed\n")
    job._kept.keep_part(str(aside), str(part), 0, None)
    agent.jobs[spec.job] = job
    agent.run()
    os.close(lifeline)
    assert not (place / "data").exists()
    return part


def test_a_client_that_lives_keeps_its_output_although_it_has_heard_of_the_end_first(tmp_path: Path) -> None:
    assert end_with_an_open_job(tmp_path, goodbye=b"bye").exists()


def test_the_output_of_a_client_that_is_gone_is_taken_back(tmp_path: Path) -> None:
    assert not end_with_an_open_job(tmp_path, goodbye=b"").exists()


def test_output_that_is_marked_complete_is_never_taken_back(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_SUCCESS").touch()
    assert end_with_an_open_job(tmp_path, goodbye=b"").exists()
