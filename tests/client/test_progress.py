"""What is shown while a job runs: on a terminal, in a log, and when an attempt fails."""

import io
import logging
import os
import pty
import select
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from zmqmr.client.endings import log
from zmqmr.client.joblog import brief
from zmqmr.client.progress import Progress, explain, summary
from zmqmr.client.texts import cut, one_line, printable
from zmqmr.messages import AttemptReport, Failure, JobUpdate, StageProgress


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The log lines of the client, as a user without -q or -v gets them."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Keep(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield said
    log.removeHandler(handler)
    log.setLevel(level)


def stage(**changes: Any) -> StageProgress:
    values: dict[str, Any] = dict(
        stage=0, step=0, kind="map", tasks=4, done=0, running=2, records=0, bytes=0, total_bytes=0, failures=0
    )
    return StageProgress(**values | changes)


def update(*stages: StageProgress, waiting: str = "") -> JobUpdate:
    return JobUpdate("job", stages, slots=2, workers=1, waiting=waiting)


def report(final: bool = True, **failure: Any) -> AttemptReport:
    reason = failure.pop("reason", "ValueError: bad")
    return AttemptReport("job", "host1", 1, "s1-map-3", 2, 4, final, Failure(reason, **failure))


class Terminal:
    """A pseudo-terminal; `shown` is what was written to it."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w")

    def shown(self) -> str:
        self.stream.flush()
        shown = b""
        while select.select([self.master], [], [], 0.2)[0]:  # the kernel may hand it over in pieces
            shown += os.read(self.master, 65536)
        return shown.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_a_terminal_gets_one_line_rewritten_in_place(
    lines: list[str], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    clock = Clock()
    progress = Progress(2, stream=terminal.stream, clock=clock)
    progress(update(stage()))
    clock.now = 2.0
    progress(
        update(stage(done=1, records=2000, bytes=4_000_000, total_bytes=16_000_000, status="busy\x1b[31m"))
    )
    progress.close()
    shown = terminal.shown()
    assert shown.count("\n") == 0
    first, second, last = shown.split("\r\x1b[K")
    assert first == "Step 1 of 2 map: 0 of 4 tasks, 2 running"
    assert second == (
        "Step 1 of 2 map: 1 of 4 tasks, 2 running, 1,000 records/s, 2.0 MB/s, 0:06 left, busy\\x1b[31m"
    )
    assert last == ""
    assert lines == []


def test_a_stage_is_estimated_by_the_time_in_which_it_worked(lines: list[str]):
    clock = Clock()
    progress = Progress(1, stream=io.StringIO(), clock=clock)
    half = dict(done=2, records=1000, bytes=1_000_000, total_bytes=2_000_000)
    progress(update(stage()))
    clock.now = 10.0
    progress(update(stage(running=0, **half), waiting="no worker is there"))
    for clock.now in (20.0, 90.0):
        progress(update(stage(running=0, **half), waiting="no worker is there"))
        assert lines[-1].endswith("2 of 4 tasks, 0 running, waiting: no worker is there")
    progress(update(stage(**half)))
    clock.now = 100.0
    progress(update(stage(**half)))
    assert lines[-1].endswith("2 of 4 tasks, 2 running, 50 records/s, 50.0 kB/s, 0:20 left")


def test_what_was_there_before_and_what_was_lost_is_not_counted_as_speed(lines: list[str]):
    clock = Clock()
    progress = Progress(1, stream=io.StringIO(), clock=clock)
    states = [(0, 5000, 5_000_000), (10, 6000, 6_000_000), (20, 4000, 4_000_000), (30, 4500, 4_500_000)]
    for clock.now, records, size in states:
        clock.now = float(clock.now)
        progress(update(stage(done=1, records=records, bytes=size, total_bytes=10_000_000)))
    assert [line.partition("running, ")[2] for line in lines] == [
        "100 records/s, 100.0 kB/s, 0:40 left",
        "",
        "50 records/s, 50.0 kB/s, 1:50 left",
    ]


def test_the_line_is_cut_to_the_terminal(
    lines: list[str], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    Progress(1, stream=terminal.stream)(update(stage(status="long " * 50)))
    shown = terminal.shown()
    assert len(shown) == 39
    assert shown.endswith("...")


def test_the_line_is_gone_before_anything_is_logged(lines: list[str], terminal: Terminal):
    progress = Progress(2, stream=terminal.stream)
    progress(update(stage()))
    progress(report())
    assert terminal.shown().endswith("\r\x1b[K")
    assert len(lines) == 1


def test_a_log_gets_a_line_every_ten_seconds_and_one_when_a_stage_ends(lines: list[str]):
    clock = Clock()
    progress = Progress(1, stream=io.StringIO(), clock=clock)
    for second in range(25):
        clock.now = float(second)
        progress(update(stage(records=second, bytes=second * 10)))
    assert [line.split(",")[0] for line in lines] == ["Step 1 of 1 map: 0 of 4 tasks"] * 2
    clock.now = 26.5
    ended = stage(done=4, running=0, records=1234, bytes=5_600_000)
    progress(update(ended, stage(stage=1, kind="reduce")))
    progress(update(ended, stage(stage=1, kind="reduce")))
    assert lines[2:] == ["Step 1 of 1 map: 4 tasks done in 26.5 s, 1,234 records, 5.6 MB"]


def test_a_status_and_a_reason_to_wait_are_logged_at_once_and_once(lines: list[str]):
    clock = Clock()
    progress = Progress(1, stream=io.StringIO(), clock=clock)
    for _ in range(3):
        progress(update(stage(status="half way"), waiting=""))
    for second in (0, 1.9, 2, 3, 4):
        clock.now = float(second)
        progress(update(waiting="no worker is there"))
    assert lines == ["Step 1 of 1 map: 0 of 4 tasks, 2 running, half way", "waiting: no worker is there"]


def test_short_waits_do_not_add_up(lines: list[str]):
    clock = Clock()
    progress = Progress(1, stream=io.StringIO(), clock=clock)
    for second in range(9):
        clock.now = float(second)
        progress(update(waiting="no free slot" if second % 2 else ""))
    assert lines == []


def test_quiet_shows_nothing_at_all(terminal: Terminal):
    assert not log.handlers
    progress = Progress(1, stream=terminal.stream)
    progress(update(stage(status="x")))
    progress.close()
    assert terminal.shown() == ""


def test_an_explanation_names_everything_that_is_known():
    text = explain(
        report(
            reason="KeyError: 'x'",
            traceback="Traceback:\n  File job.py\nKeyError: 'x'\n",
            path="/data/in.txt",
            offset=4711,
            record="the record",
            stderr="last words\n",
        ),
        steps=3,
    )
    for part in (
        "Attempt 2 of 4 of task s1-map-3 failed on host host1, in step 2 of 3",
        "KeyError: 'x'",
        "while reading /data/in.txt at byte 4711",
        "record: the record",
        "    Traceback:\n      File job.py\n",
        "    last words",
    ):
        assert part in text


def test_of_a_long_standard_error_the_end_is_shown_and_the_log_has_it_all(lines: list[str]):
    failed = report(stderr="".join(f"line {number}\n" for number in range(1235)))
    Progress(3, stream=io.StringIO())(failed)
    shown = lines[-1].split("\n")
    title = "  the end of its standard error (its last 20 lines; zmqmr logs has more):"
    assert shown[-21:] == [title, *(f"    line {number}" for number in range(1215, 1235))]
    whole = explain(replace(failed, story=("1.0 it began",)), 3)
    assert whole.count("    line ") == 1235
    assert brief(whole) == explain(replace(failed, story=("1.0 it began",)), 3, stderr_lines=20)
    assert brief(explain(report(stderr="a\n"), 3)) == explain(report(stderr="a\n"), 3)


def test_a_record_that_a_job_might_leave_out_comes_with_the_switch():
    hint = "--skip-bad-records"
    at = dict(path="/in", offset=7, record="bad")
    assert hint in explain(replace(report(**at), step=0), 3)
    for other in (report(**at), replace(report(final=False, **at), step=0), replace(report(), step=0)):
        assert hint not in explain(other, 3)


def test_a_job_that_cannot_begin_has_no_attempt_that_failed():
    said = explain(replace(report(), began=False), 3)
    assert said.startswith("The job cannot begin on host host1:\n")
    assert "ttempt" not in said


def test_a_record_is_cut_in_an_explanation():
    assert len(explain(report(record="x" * 100_000), steps=1)) < 1000


def test_a_retry_is_one_line_and_the_failure_that_ends_the_job_is_explained(lines: list[str]):
    progress = Progress(3, stream=io.StringIO())
    progress(report(final=False, traceback="T\nT", path="/in", offset=7))
    assert progress.explained is None
    progress(report(traceback="T1\nT2"))
    assert lines[0] == summary(report(final=False, path="/in", offset=7), 3)
    assert "run again (attempt 2 of 4, reading /in at byte 7): ValueError: bad" in lines[0]
    assert "\n" not in lines[0]
    assert "T1\n    T2" in lines[1]
    assert progress.explained == report(traceback="T1\nT2")


def test_failures_that_are_alike_are_said_three_times(lines: list[str]):
    progress = Progress(3, stream=io.StringIO())
    for _ in range(20):
        progress(report(final=False))
    progress(report(final=False, reason="another"))
    progress(report())
    assert [line.partition(" failed on")[0] for line in lines[:3]] == ["Task s1-map-3 of step 2 of 3"] * 3
    assert lines[3] == "More attempts fail for a reason that was said; --verbose shows each: ValueError: bad"
    assert len(lines) == 6 and lines[4].endswith("another")


def test_without_read_logs_the_failure_is_kept_and_not_explained(lines: list[str]):
    progress = Progress(3, stream=io.StringIO(), explain_failures=False)
    progress(report())
    assert lines == []
    assert progress.explained == report()


@given(st.text(st.characters(blacklist_categories=())))
def test_t18_no_text_can_steer_a_terminal(text: str):
    safe = printable(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in safe)
    safe.encode()
    assert one_line(text).isprintable() or not any(c in one_line(text) for c in "\n\t\r\x1b")


def test_escapes_say_what_was_there():
    assert one_line("a\x1b[2J\r\n\tb\x9b\u202e") == "a\\x1b[2J\\x0d\\n\\tb\\x9b\\u202e"
    assert printable("a\n\té") == "a\n\té"
    assert cut("abcdef", 5) == "ab..."
    assert cut("abcde", 5) == "abcde"


def test_the_story_of_a_task_is_told_with_its_failure(lines: list[str]) -> None:
    events = [f"{number * 7.5:.3f} event {number}" for number in range(13)]
    message = AttemptReport(
        "job", "host1", 1, "map-0-00003", 2, 4, True, Failure("it broke"), story=(*events, "no time\x1b")
    )
    explained = explain(message, 2).split("\n")
    begin = explained.index("  what happened to the task, in minutes and seconds since the job began:")
    assert explained[begin + 1] == "    ... 4 earlier events"
    assert explained[begin + 2] == "     0:30.0  event 4"
    assert explained[begin + 10] == "     1:30.0  event 12"
    assert explained[begin + 11] == "             no time\\x1b"
    assert len(explained) == begin + 12
    assert "what happened" not in explain(report(), 2)


def test_standard_input_has_its_name_in_all_that_is_said(lines: list[str]) -> None:
    shown = Progress(1, standard_input="/tmp/x/STDIN", stream=io.StringIO())
    shown(
        report(path="/tmp/x/STDIN", offset=3, stderr="cannot read /tmp/x/STDIN", reason="/tmp/x/STDIN ends")
    )
    assert "while reading standard input at byte 3" in lines[0]
    assert "/tmp" not in lines[0]
    assert shown.known("map-0 failed: /tmp/x/STDIN ends") == "map-0 failed: standard input ends"
