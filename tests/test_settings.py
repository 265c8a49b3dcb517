"""A setting is taken as it is written, or refused by the name of its variable."""

from dataclasses import fields

import pytest

from zmqmr.errors import SettingsError
from zmqmr.settings import MIB, Settings


def test_without_variables_all_settings_have_their_defaults() -> None:
    assert Settings.from_environ({"PATH": "/bin"}) == Settings()


def test_each_setting_has_a_variable() -> None:
    for field in fields(Settings):
        value = "32M" if field.name == "sort_memory" else "7"
        if field.name in ("split_bytes", "split_floor_bytes", "exclude_failures", "hold_bytes"):
            continue  # they bound each other
        value = str(512 * MIB) if field.name == "task_memory_bytes" else value
        value = "/7" if field.name == "state_directory" else value
        settings = Settings.from_environ({f"ZMQMR_{field.name.upper()}": value})
        assert getattr(settings, field.name) == type(field.default)(value)
        assert type(getattr(settings, field.name)) is type(field.default)


def test_a_state_directory_that_depends_on_where_one_is_is_refused() -> None:
    with pytest.raises(SettingsError, match="ZMQMR_STATE_DIRECTORY='jobs' must begin with /"):
        Settings.from_environ({"ZMQMR_STATE_DIRECTORY": "jobs"})


def test_a_small_budget_of_attempts_lowers_what_excludes_a_worker_unless_that_is_given_too() -> None:
    assert Settings.from_environ({"ZMQMR_MAX_ATTEMPTS": "2"}).exclude_failures == 1
    with pytest.raises(SettingsError, match="ZMQMR_EXCLUDE_FAILURES"):
        Settings.from_environ({"ZMQMR_MAX_ATTEMPTS": "2", "ZMQMR_EXCLUDE_FAILURES": "2"})


def test_the_worker_timeout_is_that_of_all_missed_heartbeats() -> None:
    settings = Settings.from_environ({"ZMQMR_HEARTBEAT_SECONDS": "0.5", "ZMQMR_HEARTBEATS_MISSED": "4"})
    assert settings.worker_timeout_seconds == 2.0


def test_the_variable_that_turns_the_hook_off_is_no_setting() -> None:
    assert Settings.from_environ({"ZMQMR_NO_HOOK": "1"}) == Settings()


@pytest.mark.parametrize(
    "variable, value, says",
    [
        ("ZMQMR_SPLIT_BITES", "1", "is not a setting"),
        ("ZMQMR_", "1", "is not a setting"),
        ("ZMQMR_split_bytes", "1", "is not a setting"),
        ("ZMQMR_SPLIT_BYTES", "1M", "must be of type int"),
        ("ZMQMR_SPLIT_BYTES", "", "must be of type int"),
        ("ZMQMR_SPLIT_BYTES", "1.5", "must be of type int"),
        ("ZMQMR_HEARTBEAT_SECONDS", "soon", "must be of type float"),
        ("ZMQMR_HEARTBEAT_SECONDS", "nan", "finite"),
        ("ZMQMR_HEARTBEAT_SECONDS", "inf", "finite"),
        ("ZMQMR_HEARTBEAT_SECONDS", "0", "too small"),
        ("ZMQMR_HEARTBEAT_SECONDS", "-1", "too small"),
        ("ZMQMR_BLOCK_BYTES", "0", "too small"),
        ("ZMQMR_MAX_ATTEMPTS", "-3", "too small"),
        ("ZMQMR_EXCLUDE_FAILURES", "4", "must be less than ZMQMR_MAX_ATTEMPTS"),
        ("ZMQMR_STATUS_PORT", "-1", "too small"),
        ("ZMQMR_STATUS_PORT", "65536", "must not exceed 65,535"),
        ("ZMQMR_MAX_ATTEMPTS", "1001", "must not exceed 1,000"),
        ("ZMQMR_MAX_PARTITIONS", "100001", "must not exceed 100,000"),
        ("ZMQMR_FRAMES_IN_FLIGHT", "1e9", "must be of type int"),
        ("ZMQMR_FRAMES_IN_FLIGHT", str(2**31), "must not exceed"),
        ("ZMQMR_KILL_SECONDS", "1e300", "must not exceed 1,000,000"),
        ("ZMQMR_MAX_LINE_BYTES", str(2**63), "must not exceed"),
        ("ZMQMR_HOLD_BYTES", "1000", "ZMQMR_FRAME_BYTES must not exceed"),
        ("ZMQMR_TASK_MEMORY_BYTES", str(MIB), "no Python process"),
        ("ZMQMR_HEARTBEATS_MISSED", "1", "at least 2"),
        ("ZMQMR_HEARTBEAT_SECONDS", "0.01", "at least 0.3"),
        ("ZMQMR_WORKER_WAIT_SECONDS", "0.5", "at least ZMQMR_HEARTBEAT_SECONDS"),
        ("ZMQMR_FRAME_BYTES", str(8 * 1024**2 + 1), "must not exceed"),
        ("ZMQMR_SPLIT_BYTES", "1000", "must not exceed"),
        ("ZMQMR_SPLIT_FLOOR_BYTES", str(1024**3), "must not exceed"),
        ("ZMQMR_SORT_MEMORY", "", "not a size"),
        ("ZMQMR_SORT_MEMORY", "much", "not a size"),
        ("ZMQMR_SORT_MEMORY", "0", "not a size"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        Settings.from_environ({variable: value})
    assert variable in str(caught.value)


def test_no_status_page_is_a_port_of_zero() -> None:
    assert Settings.from_environ({"ZMQMR_STATUS_PORT": "0"}).status_port == 0


def test_a_line_that_is_allowed_fits_into_the_memory_of_a_task() -> None:
    memory = {"ZMQMR_TASK_MEMORY_BYTES": str(200 * MIB)}
    assert Settings.from_environ(memory).task_memory_bytes == 200 * MIB
    with pytest.raises(SettingsError, match="at least twice ZMQMR_MAX_LINE_BYTES"):
        Settings.from_environ(memory | {"ZMQMR_MAX_LINE_BYTES": str(101 * MIB)})
