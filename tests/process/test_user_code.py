"""User code that prints, forks, floods or leaves things half done does not corrupt the data."""

from collections import Counter
from pathlib import Path

import pytest
from differential.harness import SMALL, run_stock, run_zmqmr
from process.places import Place

MISDEEDS = [
    "stray_print",
    "fd_1",
    "c_code",
    "new_file_on_fd_1",
    "fork_and_exit",
    "fork_and_sys_exit",
    "fork_and_raise",
    "fork_and_forget",
    "pool",
    "threads",
    "close_stdin",
    "close_fd_0",
    "change_directory",
    "change_environment",
    "signal_handlers",
    "recursion_limit",
    "replace_streams",
    "close_streams",
    "endless_line_on_stderr",
    "own_process_group",
]


def _expected(words: Path) -> Counter[bytes]:
    counts = Counter(words.read_text().split())
    return Counter(f'"{word}"\t{count}'.encode() for word, count in counts.items())


@pytest.mark.parametrize("what", MISDEEDS)
def test_what_user_code_does_beside_its_work_changes_nothing(
    place: Place, words: Path, tmp_path: Path, what: str
) -> None:
    environ = place.environ(**SMALL)
    ended = run_zmqmr("misbehaves", ["--what", what], [words], tmp_path / "out", environ=environ)
    assert ended.rc == 0, ended.stderr
    assert ended.stdout == b""
    assert ended.lines == _expected(words)
    place.assert_nothing_left()


def test_a_flood_on_standard_error_is_kept_short(place: Place, words: Path, tmp_path: Path) -> None:
    ended = run_zmqmr(
        "misbehaves", ["--what", "flood_stderr"], [words], tmp_path / "out", environ=place.environ()
    )
    assert ended.rc == 0, ended.stderr[-2000:]
    assert ended.lines == _expected(words)
    assert len(ended.stderr) < 3_000_000
    place.assert_nothing_left()


@pytest.mark.parametrize(
    "what",
    [
        "ignores",
        "reads_one_in_a_loop",
        "half_read",
        "skips_keys",
        "returns_nothing",
        "returns_a_list",
        "reads_after_the_end",
        "reads_one",
        "keeps_the_generators",
    ],
)
def test_a_reducer_need_not_read_its_values(words: Path, tmp_path: Path, what: str) -> None:
    args = ["--what", what]
    ended = run_zmqmr("lazy_reducers", args, [words], tmp_path / "out", environ=SMALL)
    assert ended.rc == 0, ended.stderr
    assert ended.lines == run_stock("lazy_reducers", args, [words]).lines
