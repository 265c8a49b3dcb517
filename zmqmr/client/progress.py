"""What the user sees while a job runs: one line that is rewritten on a terminal, log lines elsewhere."""

import logging
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from msgspec.structs import replace

from zmqmr.client.endings import is_shown, log
from zmqmr.client.pace import Pace
from zmqmr.client.texts import cut, one_line, printable, size_words
from zmqmr.messages import AttemptReport, Failure, JobUpdate, StageProgress
from zmqmr.words import counted

LOG_SECONDS = 10.0  # between two log lines about progress
WAIT_SECONDS = 2.0  # a shorter wait, as for the first worker, is not worth a word
SAME_FAILURES = 3  # of attempts that are run again, said one by one; then only with --verbose
LEFT_OUT = 10  # records that are left out and named
RECORD_CHARACTERS = 500  # of a record in an explanation
REASON_CHARACTERS = 200  # of one that was said before
STORY = "  what happened to the task, in minutes and seconds since the job began:"
RUN_ALONE = "  run it alone"
WORDS = "the end of its standard error"
SKIP_IT = "  --skip-bad-records"
STDERR_LINES = 20  # of an attempt's standard error, where it is shown while the job runs
STORY_LINES = 10  # of a task's story: its last events
STORY_CHARACTERS = 200  # of one of them
STANDARD_INPUT = "standard input"
OF_A_FAILURE = {"of_a_failure": True}  # marks what is logged about a failed attempt

_STORY_LINE = re.compile(r"(\d+(?:\.\d+)?) (.*)", re.DOTALL)


def explain(
    report: AttemptReport, steps: int, elsewhere: bool = False, stderr_lines: int | None = None
) -> str:
    """Why an attempt failed: host, step, task, attempt, file, offset, record, traceback, stderr.
    `elsewhere`: its host is not this one. `stderr_lines`: of its standard error, the last ones; None: all."""
    failure = report.failure
    lines = [
        _headline(report, steps),
        "  " + one_line(failure.reason),
    ]
    if failure.path:
        lines.append("  while reading " + _place(report))
    if failure.record:
        lines.append(f"  record: {cut(one_line(failure.record), RECORD_CHARACTERS)}")
        if report.final and report.step == 0 and failure.offset is not None:
            lines.append(f"{SKIP_IT} N leaves up to N such records out of the result")
    if failure.repro:
        where, command = (" on that host", "sudo zmqmr") if elsewhere else ("", "zmqmr")
        lines.append(f"{RUN_ALONE}{where}: {command} replay {one_line(failure.repro)}")
    elif failure.no_repro:
        lines.append(f"  no repro bundle: {one_line(failure.no_repro)}")
    lines += _indented("traceback", failure.traceback, None)
    lines += _indented(WORDS, failure.stderr, stderr_lines)
    lines += _story(report.story)
    return "\n".join(lines)


def _indented(title: str, text: str, last: int | None) -> list[str]:
    """A title and the lines below it, or the `last` ones of them; nothing without text."""
    if not text.strip():
        return []
    lines = ["    " + line for line in printable(text.rstrip()).split("\n")]
    return [f"  {title}:", *lines] if last is None else shortened(title, lines, last)


def shortened(title: str, lines: list[str], last: int) -> list[str]:
    """The title and the `last` ones of the lines below it, which says so if there are more."""
    more = f" (its last {last} lines; zmqmr logs has more)" if len(lines) > last else ""
    return [f"  {title}{more}:", *lines[-last:]]


def _headline(report: AttemptReport, steps: int) -> str:
    if not report.began:
        return f"The job cannot begin on host {_host(report)}:"
    return (
        f"Attempt {report.attempt} of {report.attempts} of task {report.task} failed on host "
        f"{_host(report)}, in step {report.step + 1} of {steps}:"
    )


def _story(events: Sequence[str]) -> list[str]:
    """The last events of a task, each with its time since the job's start."""
    if not events:
        return []
    lines = [STORY]
    if len(events) > STORY_LINES:
        lines.append(f"    ... {counted(len(events) - STORY_LINES, 'earlier event')}")
    for event in events[-STORY_LINES:]:
        when, what = "", event
        if timed := _STORY_LINE.fullmatch(event):
            seconds = float(timed[1])
            when, what = f"{int(seconds) // 60}:{seconds % 60:04.1f}", timed[2]
        lines.append(f"    {when:>7}  {cut(one_line(what), STORY_CHARACTERS)}")
    return lines


def summary(report: AttemptReport, steps: int) -> str:
    """One line about an attempt that is run again."""
    place = f", reading {_place(report)}" if report.failure.path else ""
    return (
        f"Task {report.task} of step {report.step + 1} of {steps} failed on host {_host(report)} and "
        f"is run again (attempt {report.attempt} of {report.attempts}{place}): "
        + one_line(report.failure.reason)
    )


def _host(report: AttemptReport) -> str:
    """Its host, and its worker where that has a name of its own."""
    own = report.worker not in ("", report.host)
    return one_line(f"{report.host} (worker {report.worker})" if own else report.host)


def _place(report: AttemptReport) -> str:
    path = one_line(report.failure.path)
    return path if report.failure.offset is None else f"{path} at byte {report.failure.offset}"


class Progress:
    """Shows the messages about one job; call it with each. `close` it before anything else is printed.

    `explained` is the report that ended the job, once it came.
    """

    def __init__(
        self,
        steps: int,
        *,
        explain_failures: bool = True,
        standard_input: str = "",
        elsewhere: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`standard_input`: path of the file that holds what was read from there, which no user knows.
        `elsewhere`: the job's hosts are not this one."""
        self._elsewhere = elsewhere
        self._steps = steps
        self._standard_input = standard_input
        self._explain = explain_failures
        self._clock = clock
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = is_shown(logging.INFO) and self._stream.isatty()
        self._drawn = False
        self._started: dict[int, float] = {}  # stage -> when its first task ran
        self._paces: dict[int, Pace] = {}  # by stage
        self._ended: set[int] = set()
        self._said = ("", "")  # status and waiting reason of the last log line
        self._waits_since = clock()
        self._failures: Counter[tuple[int, str]] = Counter()  # by step and reason
        self._left_out = 0  # records
        self._log_due = clock() + LOG_SECONDS
        self.explained: AttemptReport | None = None

    def __call__(self, message: JobUpdate | AttemptReport) -> None:
        if isinstance(message, AttemptReport):
            self._report(message)
        else:
            self._update(message)

    def close(self) -> None:
        """Take the progress line away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def known(self, text: str) -> str:
        """A text of the job's tasks with the names that the user knows."""
        return text.replace(self._standard_input, STANDARD_INPUT) if self._standard_input else text

    def _with_known_names(self, failure: Failure) -> Failure:
        known = self.known
        return replace(
            failure,
            reason=known(failure.reason),
            path=known(failure.path),
            traceback=known(failure.traceback),
            stderr=known(failure.stderr),
        )

    def named(self, report: AttemptReport) -> AttemptReport:
        """A report with the names that the user knows."""
        story = tuple(map(self.known, report.story))
        return replace(report, failure=self._with_known_names(report.failure), story=story)

    def _report(self, report: AttemptReport) -> None:
        self.close()
        report = self.named(report)
        if report.final:
            self.explained = report
            if self._explain:
                log.error(self._explained(report), extra=OF_A_FAILURE)
        else:
            self._retry(report)
            log.debug(self._explained(report), extra=OF_A_FAILURE)

    def _explained(self, report: AttemptReport) -> str:
        return explain(report, self._steps, self._elsewhere, STDERR_LINES)

    def _retry(self, report: AttemptReport) -> None:
        """Say that an attempt is run again; a fault of the job makes all of them fail alike."""
        if report.left_out:
            self._left_out += 1
            if self._left_out <= LEFT_OUT:
                said = (
                    f"left out: the record of {_place(report)}, which failed twice: {report.failure.reason}"
                )
                log.warning(one_line(said))
            elif self._left_out == LEFT_OUT + 1:
                log.warning("more records are left out")
            return
        kind = (report.step, report.failure.reason)
        self._failures[kind] += 1
        if self._failures[kind] <= SAME_FAILURES:
            log.warning(summary(report, self._steps), extra=OF_A_FAILURE)
        elif self._failures[kind] == SAME_FAILURES + 1:
            reason = cut(one_line(report.failure.reason), REASON_CHARACTERS)
            said = "More attempts fail for a reason that was said; --verbose shows each: %s"
            log.warning(said, reason, extra=OF_A_FAILURE)

    def _update(self, update: JobUpdate) -> None:
        now = self._clock()
        for stage in update.stages:
            if stage.stage not in self._paces:
                self._paces[stage.stage] = Pace(stage, now)
            self._paces[stage.stage].note(stage, now)
            if (stage.running or stage.done) and stage.stage not in self._started:
                self._started[stage.stage] = now
            if stage.tasks and stage.done == stage.tasks and stage.stage not in self._ended:
                self._ended.add(stage.stage)
                self.close()
                log.info(self._end_of(stage, now))
        if not update.waiting:
            self._waits_since = now
        active = _active(update)
        waiting = update.waiting if now - self._waits_since >= WAIT_SECONDS else ""
        line = self._line(active, waiting)
        if self._rewrites:
            self._draw(line)
        elif line and (now >= self._log_due or self._news(active, waiting)):
            self._log_due = now + LOG_SECONDS
            self._said = (active.status if active else "", waiting)
            log.info(line)

    def _news(self, active: StageProgress | None, waiting: str) -> bool:
        """Whether there is a reason to wait, or a status, that was not said yet."""
        status = active.status if active else ""
        return bool(status and status != self._said[0]) or bool(waiting and waiting != self._said[1])

    def _end_of(self, stage: StageProgress, now: float) -> str:
        seconds = now - self._started.get(stage.stage, now)
        return (
            f"{self._title(stage)}: {counted(stage.tasks, 'task')} done in {seconds:.1f} s, "
            f"{counted(stage.records, 'record')}, {size_words(stage.bytes)}"
        )

    def _title(self, stage: StageProgress) -> str:
        return f"Step {stage.step + 1} of {self._steps} {stage.kind}"

    def _line(self, stage: StageProgress | None, waiting: str) -> str:
        if stage is None:
            return f"waiting: {one_line(waiting)}" if waiting else ""
        words = [
            f"{self._title(stage)}: {stage.done} of {counted(stage.tasks, 'task')}, {stage.running} running"
        ]
        pace = self._paces[stage.stage]
        if rates := pace.rates():
            words.append(f"{rates[0]:,.0f} records/s, {size_words(rates[1])}/s")
            left = pace.seconds_left()
            if left is not None:
                words.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        if stage.failures:
            words.append(counted(stage.failures, "failed attempt"))
        if waiting:
            words.append(f"waiting: {one_line(waiting)}")
        if stage.status:
            words.append(one_line(stage.status))
        return ", ".join(words)

    def _draw(self, line: str) -> None:
        self.close()
        if line:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(cut(line, max(width, 20)))
            self._stream.flush()
            self._drawn = True


def _active(update: JobUpdate) -> StageProgress | None:
    """The stage to show: the last one with a running task, else the first that is not done."""
    running = [stage for stage in update.stages if stage.running]
    unfinished = [stage for stage in update.stages if stage.done < stage.tasks]
    return running[-1] if running else (unfinished[0] if unfinished else None)
