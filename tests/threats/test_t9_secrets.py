"""T9: a secret key is in no command line, environment, log, journal or output."""

from pathlib import Path

import pytest
from differential.harness import JOBS
from netns.services import Cluster

from zmqmr.errors import UsageError
from zmqmr.net.curve import load_keys


def test_t9_no_secret_is_where_it_does_not_belong(
    cluster: Cluster, keys: Path, words: Path, tmp_path: Path
) -> None:
    secrets = [path.read_bytes().strip() for path in keys.glob("*.secret")]
    assert len(secrets) == 3
    ended = cluster.submit(JOBS / "tells_secrets.py", [words], tmp_path / "out").end()
    assert ended["state"] == "succeeded", ended
    journal = list((cluster.place.temporary / "state").iterdir())
    logs = [service.log for service in cluster.services.values()]
    outputs = list((tmp_path / "out").glob("part-*"))
    seen = b"".join(path.read_bytes() for path in (*journal, *logs, *outputs))
    assert b"zmqmr" in seen and b"--keys" in seen and b"ZMQMR_KEYS" in seen  # it looked in the right places
    for secret in secrets:
        assert secret not in seen
        assert secret.decode() not in str(ended)


def test_t9_keys_show_no_secret(keys: Path) -> None:
    loaded = load_keys(str(keys), "worker")
    assert loaded.secret.decode() not in repr(loaded) + str(loaded)
    (keys / "worker.pub").write_text("too short")
    with pytest.raises(UsageError) as caught:
        loaded.of("worker")
    assert loaded.secret.decode() not in str(caught.value)
