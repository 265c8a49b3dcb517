"""zmqmr jobs: the jobs of this machine, those that run and those that ended, the newest first."""

import argparse
import time
from typing import TYPE_CHECKING

from zmqmr.cli import remote
from zmqmr.cli.texts import duration, moment, print_json, print_table, say
from zmqmr.errors import EXIT_OK
from zmqmr.settings import Settings
from zmqmr.words import counted

if TYPE_CHECKING:
    from zmqmr.client.records import Record

SHOWN = 20
UNSEEN = ("lost", "left")  # states of jobs whose end nobody saw


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `jobs` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "jobs",
        help="list the jobs of this machine, the newest first",
        description="List the jobs of this machine, or of a cluster, the newest first: id, state, begin,"
        " time, tasks done, and why it ended.",
        epilog="Exit status: 0 done, 3 the cluster does not answer.",
    )
    parser.add_argument("--all", action="store_true", help=f"all that are known, not only {SHOWN}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    remote.add_cluster_option(parser, "the jobs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table; 0, whatever there is."""
    if args.cluster:
        return remote.jobs(args)
    from zmqmr.client.records import Records

    records = Records.of(Settings.from_environ())
    found = records.all()
    shown = found if args.all else found[:SHOWN]
    if args.json:
        for record in shown:
            print_json(_summary(record))
    elif found:
        rows = [["JOB", "STATE", "BEGUN", "TIME", "DONE", "CLUSTER", "WHY"], *map(_row, shown)]
        if not any(record.cluster for record in shown):
            rows = [[*row[:-2], row[-1]] for row in rows]
        print_table(rows)
        if len(shown) < len(found):
            say(f"{len(found) - len(shown)} more: zmqmr jobs --all")
    if damaged := records.damaged():
        say(f"{counted(len(damaged), 'record')} cannot be read, the first is {damaged[0]}; remove it")
    elif not found and not args.json:
        say("no job has run on this machine, or none is remembered")
    return EXIT_OK


def seconds(record: "Record") -> float:
    """How long a job has run; 0 for one whose end nobody saw."""
    if record.state == "running":
        return time.time() - record.begun
    return max(0.0, record.ended - record.begun) if record.state not in UNSEEN else 0.0


def _row(record: "Record") -> list[str]:
    done, tasks = _done(record)
    reason = record.reason.partition("\n")[0]
    return [
        record.job,
        record.state,
        moment(record.begun),
        duration(seconds(record)) if record.state not in UNSEEN else "?",
        f"{done} of {counted(tasks, 'task')}" if tasks else "",
        record.cluster,
        reason if len(reason) <= 80 else reason[:77] + "...",
    ]


def _done(record: "Record") -> tuple[int, int]:
    return sum(stage.done for stage in record.stages), sum(stage.tasks for stage in record.stages)


def _summary(record: "Record") -> dict[str, object]:
    done, tasks = _done(record)
    return {
        "job": record.job,
        "state": record.state,
        "reason": record.reason,
        "begun": record.begun,
        "seconds": seconds(record),
        "done": done,
        "tasks": tasks,
        "script": record.script,
        "output_dir": record.output_dir,
        "detached": record.detached,
        "cluster": record.cluster,
    }
