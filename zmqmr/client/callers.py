"""Who called the runner: mrjob hands it less than it needs to know."""

import sys
from types import FrameType


def driven_by_run_job() -> bool:
    """Whether MRJob.run_job is among the callers of this function."""
    return _caller("run_job") is not None


def job_that_makes_runner() -> tuple[str, bool]:
    """Of the job whose make_runner is among the callers: the qualified name of its class, "" when there is
    none or it cannot be found in its file by that name; and whether it prints its output."""
    frame = _caller("make_runner")
    if frame is None:
        return "", False
    job = frame.f_locals["self"]
    name: str = type(job).__qualname__
    return "" if "<" in name else name, bool(job._should_cat_output())


def _caller(method: str) -> FrameType | None:
    """The newest call of a method of MRJob that has not ended."""
    module = sys.modules.get("mrjob.job")
    if module is None:
        return None
    code = getattr(module.MRJob, method).__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame
