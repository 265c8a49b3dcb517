"""cluster.yml run again while a job runs: it replaces what is lost, names what fails, grows and shrinks the
cluster; and all get new keys."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.jobs import Running, same, start_and_hold, until
from cluster.plays import AFRESH, output_until, play_role, rest_of, shown
from differential.harness import Result
from testbed.controller import Controller

pytestmark = pytest.mark.timeout(1200)

DRIVELESS = "m6i.large"


@pytest.fixture(scope="module")
def running(cluster: Controller, lines: Path) -> Iterator[Running]:
    """A job whose tasks wait all the while."""
    running = start_and_hold(cluster, lines)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def ids(cluster: Controller) -> list[str]:
    """The workers' instances, the oldest first."""
    return [instance["InstanceId"] for instance in cluster.instances("worker")]


def test_a_lost_worker_is_replaced_the_cluster_grows_to_four_and_hosts_that_fail_or_die_stop_no_other(
    cluster: Controller, running: Running
) -> None:
    before = ids(cluster)
    cluster.host(cluster.instances("worker")[0]).kill()
    stuck = cluster.host(cluster.instances("worker")[2])
    stuck.enter("systemctl", "stop", "zmqmr-worker.service")
    squatter = [
        "systemd-run",
        "--unit=squatter",
        "python3",
        "-m",
        "http.server",
        f"--bind={stuck.address}",
        "2683",
    ]
    stuck.enter(*squatter)
    try:
        process = cluster.start(
            "cluster.yml", workers=4, boot_seconds=10, silent_seconds=8,
            worker_type=DRIVELESS, worker_market="spot", allow_no_drives=True,
        )  # fmt: skip
        said = output_until(process, line="PLAY [Start the workers]")
        cluster.host(cluster.instances("worker")[0]).kill()
        played = rest_of(process, said)
    finally:
        stuck.enter("systemctl", "stop", "squatter.service")

    assert running.goes_on
    after = ids(cluster)
    assert len(after) == 4 and set(before) - set(after) == {before[0]}
    # The one that failed is named, with phase and last words; nobody waited for it, nor for the dead one.
    assert played.status != 0
    dead, failed = before[1:]
    assert re.search(rf"The worker does not start on {failed}: .*2683", played.reason), played.output
    assert re.search(rf"fatal: \[{dead}\]: UNREACHABLE!", played.output), played.output
    reason = re.search(
        r"2 of 4 workers of cluster demo are there; missing: (i-\w+), (i-\w+)\.", played.reason
    )
    assert reason is not None and set(reason.groups()) == {dead, failed}
    retry = (cluster.home / ".local/state/zmqmr/retry/cluster.retry").read_text().split()
    assert set(retry) & set(after) == {dead, failed}
    # systemd starts it again, as it does after every failure; a host that died has its worker when it boots.
    cluster.bed.host(cluster.instances("worker")[0]["PrivateIpAddress"]).start()
    cluster.wait_for_workers(set(after))


def test_new_workers_are_of_the_market_and_the_type_that_were_asked_for(cluster: Controller) -> None:
    bought = {
        (each["InstanceType"], each.get("InstanceLifecycle", "")) for each in cluster.instances("worker")
    }

    assert bought == {("c6id.large", ""), (DRIVELESS, "spot")}
    (coordinator,) = cluster.instances("coordinator")
    assert "InstanceLifecycle" not in coordinator


def test_a_host_without_drives_uses_a_directory_when_it_may_and_is_refused_when_not(
    cluster: Controller, tmp_path: Path
) -> None:
    driveless = cluster.instances("worker")[-1]
    name = driveless["InstanceId"]
    assert "/var/lib/zmqmr/work" in cluster.host(driveless).enter("cat", "/etc/zmqmr/worker-directories")

    allowed = play_role(
        cluster, tmp_path, "ephemeral_storage", driveless, ephemeral_storage_allow_directory=True
    )
    refused = play_role(cluster, tmp_path, "ephemeral_storage", driveless, check=False)

    said = (
        f"{name} has no instance-store drives: its worker spills into /var/lib/zmqmr/work, on the root drive"
    )
    assert said in allowed.reason
    assert refused.status != 0
    assert (
        f"{name} ({DRIVELESS}) has 0 instance-store drives, and 1 are wanted: take an instance type"
        in refused.reason
    )


def test_workers_that_cannot_leave_in_time_stay_and_take_work_again(
    cluster: Controller, running: Running
) -> None:
    before = ids(cluster)
    limit = "--limit=localhost,zmqmr_coordinator"  # the other hosts have nothing to do with it
    killed = cluster.start("cluster.yml", limit, workers=2)
    output_until(killed, line="TASK [ec2_cluster : Drain those")
    until(lambda: list(cluster.workers().values()).count("draining") == 2, "nobody is to leave")
    cluster.kill(killed)

    blind = cluster.play("cluster.yml", f"--limit=localhost,{before[0]}", check=False, workers=2)
    assert blind.status != 0 and "None leaves: --limit leaves the coordinator out" in blind.reason
    played = cluster.play("cluster.yml", limit, AFRESH, check=False, workers=2, drain_seconds=1)

    assert played.status != 0
    named = re.search(r"(.*) still had data that jobs need after 1 s, and goes on working", played.reason)
    assert named and set(named[1].split(", ")) == set(before[2:])
    assert running.goes_on
    cluster.wait_for_workers(set(before))


def test_workers_leave_in_order_when_there_are_too_many(cluster: Controller, running: Running) -> None:
    before = ids(cluster)
    process = cluster.start("cluster.yml", workers=2)
    said = output_until(process, line="TASK [ec2_cluster : Drain those")
    until(lambda: list(cluster.workers().values()).count("draining") == 2, "nobody is to leave")
    # What they have begun they finish.
    running.open(*(cluster.host(instance) for instance in cluster.instances("worker")[2:]))
    played = rest_of(process, said)

    assert running.goes_on
    assert ids(cluster) == before[:2]
    assert "Drain those that are too many" in played.output
    cluster.wait_for_workers(set(before[:2]))


def test_t19_keys_are_rotated_while_a_job_runs_and_the_old_ones_refused(
    cluster: Controller, running: Running, tmp_path: Path
) -> None:
    old = (cluster.directory / "authorized_keys").read_text().split()
    colleague = Controller(cluster.bed, tmp_path, cluster.cache)
    shutil.copytree(cluster.directory, colleague.directory)
    before = cluster.secrets()
    pid = coordinator_pid(cluster)

    killed_before_the_coordinator_knows(cluster)
    assert coordinator_pid(cluster) == pid
    played = cluster.play("playbooks/rotate_keys.yml", "-vvv", "--diff")

    assert running.goes_on
    assert coordinator_pid(cluster) != pid
    assert not shown(before | cluster.secrets(), played.output)  # T9
    new = (cluster.directory / "authorized_keys").read_text().split()
    assert len(new) == 6 and set(new) & set(old) == {"coordinator", "worker", "client"}
    for instance in cluster.instances():
        assert cluster.host(instance).enter("cat", "/etc/zmqmr/authorized_keys").split() == new
    cluster.wait_for_workers(set(ids(cluster)))
    stranger(colleague)


def coordinator_pid(cluster: Controller) -> str:
    shown = ["systemctl", "show", "--property=MainPID", "zmqmr-coordinator.service"]
    return cluster.coordinator().enter(*shown)


def killed_before_the_coordinator_knows(cluster: Controller) -> None:
    """A rotation that is killed when the coordinator's host has its new key, and the coordinator not."""
    process = cluster.start("playbooks/rotate_keys.yml")
    output_until(process, line="TASK [zmqmr_service : ")
    cluster.kill(process)
    there = cluster.coordinator().enter("cat", "/etc/zmqmr/keys/coordinator.pub")
    assert there == (cluster.directory / "new-keys/coordinator.pub").read_text().strip()


def stranger(colleague: Controller) -> None:
    """Who has the cluster's folder as it was before the keys were exchanged."""
    asking = ["timeout", "60", "zmqmr", "jobs", "--cluster", colleague.name]
    lost = colleague.run(*asking, check=False)
    assert lost.returncode == 3
    last = lost.stderr.splitlines()[-1]
    assert f"has another key than {colleague.directory}/coordinator.pub: somebody has exchanged" in last

    played = colleague.play("playbooks/rotate_keys.yml", check=False)
    assert played.status != 0
    assert "are not those that the coordinator of cluster demo has" in played.reason
    assert not (colleague.directory / "new-keys").exists()

    coordinator = colleague.coordinator().enter("cat", "/etc/zmqmr/keys/coordinator.pub")
    (colleague.directory / "coordinator.pub").write_text(coordinator + "\n")
    refused = colleague.run(*asking, check=False)
    assert refused.returncode == 3
    assert "refuses us: it does not know our key" in refused.stderr


def test_the_job_that_ran_meanwhile_gives_the_same_bytes(
    running: Running, undisturbed: Result, expected: Result
) -> None:
    ours = running.end()

    same(ours, expected)
    assert ours.stdout == undisturbed.stdout
    assert "its executor ended" not in ours.stderr, "a service that is stopped has failed no task"
