"""Cuts the inputs of a job into splits and counts its partitions. Pure: works on sizes, opens no file.

The answers depend on the files and the settings only, never on the workers, so that a job has the
same tasks, and the same output bytes, wherever it runs.
"""

from collections.abc import Iterable, Iterator, Sequence

from zmqmr.errors import UsageError
from zmqmr.messages import InputFile, Piece, Split

AIM_SPLITS = 32  # with no number of maps given, aim for this many splits, within the bounds
PACK_THRESHOLD = 256  # files; with more than this many, small files share a split
OPEN_COST_BYTES = 4096  # opening a file is counted as reading this much when files are packed


def plan_splits(
    files: Sequence[InputFile],
    *,
    maps: int | None,
    split_floor_bytes: int,
    split_bytes: int,
    pack: bool = True,
    pack_threshold: int = PACK_THRESHOLD,
) -> tuple[Split, ...]:
    """The splits of `files`, in order; together they hold every byte of every file exactly once.

    A split aims at the total size of the plain files divided by `maps`; without `maps`, at a 32nd of
    it, at least `split_floor_bytes` and at most `split_bytes`. A plain file above that size is cut
    into pieces of equal size, so there is never a tiny rest. A compressed file is never cut. An empty
    file is a piece of length 0, since a mapper's init and final run for it too. Without any file there
    is one split, with no piece.

    Up to `pack_threshold` files, or with `pack` false, a split never spans files, so that
    `mapreduce_map_input_file` is exact for the whole task: jobs may read it in `mapper_init`. With
    more files, a task for each would cost more than its records do, so whole small files are packed
    into one split up to the aim; then a task sees several files, and what it reads in `mapper_init`
    holds for the first of them only. A job that needs the exact name asks for `pack` false.

    UsageError if `maps` is less than 1.
    """
    if maps is not None and maps < 1:
        raise UsageError(
            f"the number of map tasks is {maps}; set mapreduce.job.maps to 1 or more, or unset it"
        )
    if not files:
        return (Split(()),)

    def aim(total: int) -> int:
        if maps is not None:
            return max(1, _ceil(total, maps))
        return max(1, split_floor_bytes, min(_ceil(total, AIM_SPLITS), split_bytes))

    aim_bytes = aim(sum(file.size for file in files if not file.codec))
    pieces = (piece for file in files for piece in _cut(file, aim_bytes))
    if not pack or len(files) <= pack_threshold:
        return tuple(Split((piece,)) for piece in pieces)
    return tuple(_packed(pieces, aim(sum(file.size + OPEN_COST_BYTES for file in files))))


def one_file_splits(files: Iterable[InputFile]) -> tuple[Split, ...]:
    """A split for each file, whole, in order: the input of `mapper_raw`."""
    return tuple(Split((whole(file),)) for file in files)


def partition_count(
    total_bytes: int, *, reduces: int | None, partition_bytes: int, max_partitions: int
) -> int:
    """The number of partitions: `reduces` if given, else one for each `partition_bytes` of input.

    Without `reduces` at least 1 and at most `max_partitions`. UsageError if `reduces` is less than 1.
    """
    if reduces is None:
        return max(1, min(_ceil(total_bytes, partition_bytes), max_partitions))
    if reduces < 1:
        raise UsageError(
            f"the number of reduce tasks is {reduces}; set mapreduce.job.reduces to 1 or more, or unset it"
        )
    return reduces


def whole(file: InputFile) -> Piece:
    """All of `file` as one piece."""
    return Piece(file, 0, file.size)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _cut(file: InputFile, aim_bytes: int) -> Iterator[Piece]:
    count = 1 if file.codec else max(1, _ceil(file.size, aim_bytes))
    for i in range(count):
        start, end = file.size * i // count, file.size * (i + 1) // count
        yield Piece(file, start, end - start)


def _packed(pieces: Iterable[Piece], aim_bytes: int) -> Iterator[Split]:
    """Neighbouring pieces joined while they fit; the pieces of a cut file stay on their own."""
    group: list[Piece] = []
    group_bytes = 0
    for piece in pieces:
        cost = piece.length + OPEN_COST_BYTES
        if piece.length < piece.file.size:
            cost = max(cost, aim_bytes)
        if group and group_bytes + cost > aim_bytes:
            yield Split(tuple(group))
            group, group_bytes = [], 0
        group.append(piece)
        group_bytes += cost
    if group:
        yield Split(tuple(group))
