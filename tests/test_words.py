"""How sentences say numbers of things."""

import pytest

from zmqmr.words import counted


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 tasks"),
        (1, "1 task"),
        (2, "2 tasks"),
        (12345, "12,345 tasks"),
        (1.0, "1 task"),
        (0.5, "0.5 tasks"),
    ],
)
def test_one_thing_is_no_plural(count: float, said: str) -> None:
    assert counted(count, "task") == said
