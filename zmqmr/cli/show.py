"""zmqmr show: all that is known of one job."""

import argparse
import os
import shlex
from typing import TYPE_CHECKING, Any

from zmqmr.cli import remote
from zmqmr.cli.jobs import UNSEEN, seconds
from zmqmr.cli.texts import add_job_argument, duration, moment, print_json, print_progress, say
from zmqmr.client.texts import one_line, printable
from zmqmr.data import places
from zmqmr.errors import EXIT_OK, ZmqmrError
from zmqmr.settings import Settings
from zmqmr.words import counted

if TYPE_CHECKING:
    from zmqmr.client.records import Record, Records

FAILURES = 3  # the newest, in full


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `show` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "show",
        help="all about a job: steps, tasks done, counters, failures",
        description="Show all that is known of a job, running or ended: its state, command and inputs, where"
        f" its output is, tasks done, counters, and the {FAILURES} newest failures that differ.",
        epilog="Exit status: 0 done, 2 there is no such job, 3 the cluster does not answer.",
    )
    add_job_argument(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    remote.add_cluster_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; 0, or 2 when there is no such job."""
    record = None if args.cluster else remote.record_of(args)
    if record is None:
        return remote.show(args)
    import msgspec

    from zmqmr.client.joblog import entries
    from zmqmr.client.records import Records

    records = Records.of(Settings.from_environ())
    record = _with_news(args, record, records) if args.cluster else _with_progress(record)
    failures = [entry for _, entry in entries(records.log_path(record.job)) if entry.get("failure")]
    if args.json:
        # Without omitting what has its default value: readers of the JSON expect every field.
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        print_json(msgspec.to_builtins(fields) | {"failures": failures})
    else:
        _print(record)
        _print_failures(record, failures)
    return EXIT_OK


def _with_progress(record: "Record") -> "Record":
    """The record of a running job with what its coordinator says now."""
    import msgspec

    from zmqmr.client import contact

    if record.state != "running":
        return record
    update = contact.progress(record)
    return record if update is None else msgspec.structs.replace(record, stages=list(update.stages))


def _with_news(args: argparse.Namespace, record: "Record", records: "Records") -> "Record":
    """The record of a job on a cluster with what that says now, if it can be asked."""
    from zmqmr.client.remote_records import news

    if record.state not in ("running", "left"):
        return record
    try:
        with remote.connect(args) as cluster:
            return news(record, cluster, records)
    except ZmqmrError as error:
        say(f"this is what is known here: {error}")
        return record


def _print(record: "Record") -> None:
    from zmqmr.client.records import living

    lines = [
        ("job", record.job),
        ("state", record.state + (f": {record.reason.partition(chr(10))[0]}" if record.reason else "")),
        ("begun", moment(record.begun)),
        ("time", duration(seconds(record)) if record.state not in UNSEEN else "not known"),
        ("command", shlex.join(record.command or [record.script, *record.arguments])),
        ("in", record.cwd),
        ("cluster", record.cluster),
        ("output", _where_output_is(record)),
        ("inputs", _inputs(record)),
        ("resumes", record.resumes),
        ("resumed by", record.resumed_by),
        ("data", record.data if not record.cluster and os.path.isdir(record.data) else ""),
        ("processes", ", ".join(f"{what} {each.pid}" for what, each in sorted(living(record).items()))),
        ("versions", ", ".join(f"{what} {version}" for what, version in sorted(record.versions.items()))),
        ("settings", ", ".join(f"ZMQMR_{k.upper()}={v}" for k, v in sorted(record.settings.items()))),
    ]
    for name, value in lines:
        if value:
            print(f"{name + ':':12}{one_line(value)}")
    print_progress(record.stages, record.counters, record.steps)


def _where_output_is(record: "Record") -> str:
    if record.state not in ("running", "succeeded", "left"):
        return ""  # there is none
    if record.output_dir:
        return record.output_dir
    if not record.to_stdout:
        return "not kept"
    if record.fetched:
        return "was printed" if record.cluster else "was printed by zmqmr attach"
    if not record.detached and not (record.cluster and record.state in ("left", "succeeded")):
        return "standard output of its client"
    kept = record.cluster or record.state == "running"
    if not kept and not os.path.isdir(os.path.join(record.data, places.OUTPUT)):
        return "not kept any more"
    return f"kept until it is fetched: zmqmr attach {record.job}"


def _inputs(record: "Record") -> str:
    names = [each.path for each in record.inputs[:3]]
    more = record.input_count - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _print_failures(record: "Record", failures: list[dict[str, Any]]) -> None:
    from zmqmr.client.joblog import brief, essence

    newest = {essence(entry["text"]): entry for entry in failures}  # of those that are alike
    shown = sorted(newest.values(), key=lambda entry: entry["time"])[-FAILURES:]
    for entry in shown:
        print(printable(brief(entry["text"])))
    if len(failures) > len(shown):
        print(f"{counted(len(failures) - len(shown), 'earlier failure')}: zmqmr logs {record.job}")
