"""Runner options: those that zmqmr adds to mrjob's, and which of mrjob's it knows."""

from typing import Any

OWN = frozenset(
    {"cluster", "detach", "resume", "resume_from", "shared_inputs", "skip_bad_records", "task_runner_alias"}
)
LOCAL = frozenset(
    {"hadoop_version", "num_cores", "sort_bin"}
)  # of mrjob's local runner, with the same meaning
SPARK_ONLY = frozenset({"spark_args", "spark_submit_bin"})


def runner_options() -> dict[str, dict[str, Any]]:
    """The options to merge into mrjob.options._RUNNER_OPTS, in its format."""
    return {
        "cluster": {
            "switches": [
                (
                    ["--cluster"],
                    {
                        "metavar": "NAME",
                        "help": (
                            "Run the job on a cluster: the name of one that the playbook cluster.yml made, or"
                            " tcp://HOST:PORT of a coordinator. The job's files and inputs are pushed there."
                            " (zeromq only)"
                        ),
                    },
                )
            ]
        },
        "shared_inputs": {
            "switches": [
                (
                    ["--shared-inputs"],
                    {
                        "action": "store_true",
                        "help": (
                            "With --cluster: the workers see the inputs under the same paths, on a file"
                            " system that they mount; do not push them. (zeromq only)"
                        ),
                    },
                )
            ]
        },
        "detach": {
            "switches": [
                (
                    ["--detach"],
                    {
                        "action": "store_true",
                        "help": (
                            "Print the job's id and return at once; the job goes on. `zmqmr attach JOB`"
                            " follows it and prints its output, unless that goes to --output-dir."
                            " (zeromq only)"
                        ),
                    },
                )
            ]
        },
        "resume": {
            "switches": [
                (
                    ["--resume"],
                    {
                        "action": "store_true",
                        "help": (
                            "Take up the newest run of this command that did not succeed: tasks whose input,"
                            " code and settings are the same do not run again. (zeromq only)"
                        ),
                    },
                )
            ]
        },
        "resume_from": {
            "switches": [
                (
                    ["--resume-from"],
                    {"metavar": "JOB", "help": "As --resume, but take up the job JOB. (zeromq only)"},
                )
            ]
        },
        "skip_bad_records": {
            "switches": [
                (
                    ["--skip-bad-records"],
                    {
                        "type": int,
                        "help": (
                            "How many records may be left out that fail their mapper twice, or crash it."
                            " They are counted, and kept in _skipped in the output directory, or without"
                            " --output-dir beside the repro bundles. Default 0."
                            " (zeromq only)"
                        ),
                    },
                )
            ]
        },
        "task_runner_alias": {
            "switches": [
                (
                    ["--task-runner-alias"],
                    {
                        "help": (
                            "What tasks get as --runner, for jobs that behave differently on some runner"
                            " (e.g. hadoop). By default tasks get no --runner, unless the job passes it"
                            " through. (zeromq only)"
                        )
                    },
                )
            ]
        },
    }


def foreign_options(supported: frozenset[str] | set[str]) -> set[str]:
    """The names of mrjob's options that are for other runners."""
    from mrjob.options import _RUNNER_OPTS

    return set(_RUNNER_OPTS) - set(supported)


def check_alias(alias: str) -> None:
    """UsageError unless `alias` is the name of a runner."""
    from mrjob.options import _RUNNER_ALIASES

    from zmqmr.errors import UsageError

    if alias not in _RUNNER_ALIASES:
        names = ", ".join(sorted(_RUNNER_ALIASES))
        raise UsageError(f"--task-runner-alias {alias!r} is not a runner; use one of {names}")
