"""Steps of every shape give what stock mrjob gives."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from differential.harness import SMALL, Result, run_stock, run_zmqmr

Compare = Callable[..., Result]

# Each substep of each task, and each run of a combiner, starts an interpreter: a few of them tell as much.
LARGER = {"ZMQMR_SPLIT_BYTES": "9000", "ZMQMR_SPLIT_FLOOR_BYTES": "9000", "ZMQMR_COMBINE_VALUES": "400"}
PROCESSES = SMALL | LARGER

CHAINS = [
    "m",
    "m,m,m",
    "mr,r",
    "mr,m",
    "mcr,mcr,mr",
    "m,mr",
    "m,r",
    "mr,r,m,r",
    "mc",
    "m,c",
    "m,cr",
    "mr,c,m",
]


@pytest.mark.parametrize(
    "job",
    ["word_count", "init_final", "map_only", "class_attributes", "nothing_out", "overrides", "rewrites_run"],
)
def test_a_job_gives_what_stock_mrjob_gives(compare: Compare, text: Path, job: str) -> None:
    compare(job, inputs=[text])


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_steps_gives_what_stock_mrjob_gives(compare: Compare, text: Path, chain: str) -> None:
    compare("chains", ["--chain", chain], [text])


def test_a_reduce_only_step_groups_its_input(compare: Compare, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{json.dumps(f'k{i * i % 97}')}\t{i}\n" for i in range(2000)))
    assert len(compare("reduce_only", inputs=[pairs]).parts) > 1


@pytest.mark.parametrize("job", ["map_only", "word_count"])
def test_the_small_settings_make_many_tasks(text: Path, tmp_path: Path, job: str) -> None:
    assert len(run_zmqmr(job, [], [text], tmp_path / "out", environ=SMALL).parts) >= 4


@pytest.mark.parametrize("maps_and_reduces", ["1", "3", "11"])
def test_the_job_says_how_many_reducers(compare: Compare, text: Path, maps_and_reduces: str) -> None:
    reduces = ["-D", f"mapreduce.job.reduces={maps_and_reduces}"]
    result = compare("word_count", reduces, [text])
    assert len(result.parts) == int(maps_and_reduces)


def test_sort_values_gives_values_in_the_order_of_their_bytes(compare: Compare, text: Path) -> None:
    compare("sorted_values", inputs=[text])


def test_key_fields_choose_the_partition(compare: Compare, text: Path) -> None:
    result = compare("fields_partitioner", inputs=[text])
    assert len(result.parts) == 5
    homes: dict[bytes, set[str]] = {}
    for name, data in result.parts.items():
        for line in data.splitlines():
            homes.setdefault(line.split(b",")[0], set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert len(set.union(*homes.values())) > 1


def test_n_line_input_gives_each_task_so_many_lines_with_their_offsets(text: Path, tmp_path: Path) -> None:
    """Stock inline ignores the input format, so what is right comes from the file."""
    result = run_zmqmr("n_lines", [], [text], tmp_path / "out", environ=SMALL)
    assert result.rc == 0, result.stderr
    tasks = sorted(json.loads(line.split(b"\t")[1]) for line in result.lines.elements())
    lines, offset = [], 0
    for line in text.read_bytes().splitlines(keepends=True):
        lines.append([offset, line.decode().rstrip("\n")])
        offset += len(line)
    assert tasks == [lines[i : i + 7] for i in range(0, len(lines), 7)]


def test_a_raw_mapper_reads_each_file_whole(compare: Compare, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        (folder / f"file{number}.bin").write_bytes(bytes(range(256)) * number * 10)
    compare("raw_mapper", inputs=sorted(folder.iterdir()))


def test_a_raw_mapper_finds_a_gz_file_decompressed(compare: Compare, tmp_path: Path, text: Path) -> None:
    packed = tmp_path / "words.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    compare("raw_mapper", inputs=[packed, text], runner="local")


@pytest.mark.parametrize(
    "shape",
    [
        "mapper",
        "mapper-reducer",
        "all",
        "python-then-reducer",
        "python-then-combiner",
        "command-then-python",
        "python-then-command",
        "no-match",
    ],
)
def test_commands_as_substeps(compare: Compare, text: Path, shape: str) -> None:
    compare("commands", ["--shape", shape], [text], runner="local", settings=PROCESSES)


@pytest.mark.parametrize("where", ["mapper", "combiner", "reducer"])
@pytest.mark.parametrize("command", ["cat", "grep nosuchword"])
def test_filters_before_substeps(compare: Compare, text: Path, where: str, command: str) -> None:
    args = ["--where", where, "--filter", command]
    compare("filters", args, [text], runner="local", settings=PROCESSES)


def test_a_filter_takes_lines_away(compare: Compare, text: Path) -> None:
    compare("filters", ["--filter", "grep e | grep -v a"], [text], runner="local", settings=PROCESSES)


def test_each_task_starts_with_the_state_of_the_import(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"line 1\nline 2\n"))
    inputs = [tmp_path / "a.gz", tmp_path / "b.gz"]
    stock = run_stock("random_seed", inputs=inputs, runner="local")
    ours = run_zmqmr("random_seed", inputs=inputs, output=tmp_path / "out", environ=SMALL)
    assert stock.rc == ours.rc == 0, ours.stderr
    assert ours.lines == stock.lines
    assert set(ours.lines.values()) == {2}


def test_keys_equal_in_python_but_not_in_bytes_are_grouped_when_they_are_neighbours(tmp_path: Path) -> None:
    """mrjob groups neighbours by the decoded key: 1 and 1.0 meet in a reducer when nothing sorts between.
    Which partition a key goes to is decided by its bytes, so only one partition shows it."""
    pairs = tmp_path / "pairs.txt"
    pairs.write_text('1\t"a"\n1.0\t"b"\n1\t"c"\ntrue\t"d"\n2\t"e"\n')
    args = ["-D", "mapreduce.job.reduces=1"]
    ours = run_zmqmr("equal_keys", args, [pairs], tmp_path / "out")
    stock = run_stock("equal_keys", ["--num-cores", "1"], [pairs], runner="local")
    assert ours.rc == stock.rc == 0, ours.stderr
    assert ours.lines == stock.lines
    assert b'"1"\t["a", "b", "c"]' in ours.lines
