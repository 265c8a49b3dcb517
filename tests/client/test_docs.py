"""docs/mrjob.md leaves out no option and no attribute, and says of each what the code does."""

import re
from pathlib import Path

import pytest

from zmqmr import hook

hook.install()

TEXT = (Path(__file__).parent.parent.parent / "docs" / "mrjob.md").read_text()
IGNORED = set(
    re.findall(r"`(\w+)`", TEXT.split("Ignored, because they are for another runner:")[1].split("##")[0])
)


def test_every_option_is_in_the_table_of_what_works_or_in_the_list_of_what_is_ignored():
    from mrjob.options import _RUNNER_OPTS

    from zmqmr.client.options import foreign_options
    from zmqmr.client.runner import ZeroMQMRJobRunner

    assert foreign_options(ZeroMQMRJobRunner.OPT_NAMES) == IGNORED
    table = TEXT.split("## Options")[1].split("Ignored, because")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(_RUNNER_OPTS) - IGNORED <= named


def test_every_attribute_of_a_job_is_there():
    from mrjob.job import MRJob

    attributes = {name for name in vars(MRJob) if name.isupper()}
    assert attributes - set(re.findall(r"`(\w+)`", TEXT)) == set()


@pytest.mark.parametrize(
    "name", ["UNSUPPORTED", "MAPS", "REDUCES", "TIMEOUT", "PARTITIONER_CLASS", "PACK_FILES"]
)
def test_every_key_of_jobconf_is_there(name: str):
    from zmqmr.client import jobconf

    value = getattr(jobconf, name)
    for key in [value] if isinstance(value, str) else value:
        assert f"`{key}`" in TEXT
