"""Job ids: safe everywhere, and different for different keys."""

import re

from hypothesis import given
from hypothesis import strategies as st

from zmqmr.ids import MAX_ID, job_id
from zmqmr.messages import Attach, decode, encode


def test_a_plain_key_of_mrjob_is_its_own_id():
    key = "word_count.hadoop.20240131.235959.000001"
    assert job_id(key) == key


@given(st.text(st.characters(blacklist_categories=()), max_size=300))
def test_every_key_gives_an_id_that_is_safe_in_messages_and_paths(key: str):
    name = job_id(key)
    assert re.fullmatch(r"[A-Za-z0-9._:-]+", name)
    assert len(name) <= MAX_ID
    assert name[0] not in ".-"
    assert decode(encode(Attach(name)), Attach).job == name
    assert job_id(name) == name


def test_keys_that_look_alike_once_they_are_safe_stay_apart_and_keep_their_time():
    ids = {job_id(f"{label}.me.20240131.235959.000001") for label in ("a b", "a/b", "a-b", "é", "x" * 400)}
    assert len(ids) == 5
    assert all(".20240131.235959.000001" in name for name in ids)
