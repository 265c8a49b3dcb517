"""How fast a stage of a job goes, and how long it still takes."""

from zmqmr.messages import StageProgress


class Pace:
    """The pace of one stage while tasks of it run. What it had when it was first seen, what it lost with a
    worker, and the time in which it waits are not counted."""

    def __init__(self, stage: StageProgress, now: float):
        """`now`: seconds, as of a monotonic clock."""
        self._base = self._last = stage
        self._at = now
        self._seconds = 0.0  # in which a task ran, since the base

    def note(self, stage: StageProgress, now: float) -> None:
        """The stage as it is now."""
        if self._last.running:
            self._seconds += now - self._at
        if (
            stage.records < self._last.records
            or stage.bytes < self._last.bytes
            or stage.done < self._last.done
        ):
            self._base, self._seconds = stage, 0.0
        self._last, self._at = stage, now

    def rates(self) -> tuple[float, float] | None:
        """Records and bytes a second; None when that is not known, or no task runs."""
        records, size = self._last.records - self._base.records, self._last.bytes - self._base.bytes
        if not self._last.running or self._seconds <= 0 or records <= 0:
            return None
        return records / self._seconds, size / self._seconds

    def seconds_left(self) -> float | None:
        """Until the stage is done, if it goes on like this; None when that cannot be said."""
        base, last = self._base, self._last
        total = last.total_bytes or last.tasks
        begun, done = (base.bytes, last.bytes) if last.total_bytes else (base.done, last.done)
        return self._seconds * (total - done) / (done - begun) if begun < done <= total else None
