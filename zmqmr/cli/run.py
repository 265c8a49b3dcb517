"""zmqmr-run: run a job file with `-r zeromq`, needing neither the start-up hook nor a change of the file.

A short job is over in a fraction of a second, so this module imports little before the job file does.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from zmqmr import __version__, hook
from zmqmr.data.jobfile import run_job_file
from zmqmr.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, EXIT_USAGE, UsageError, ZmqmrError

HELP = """\
usage: zmqmr-run JOB.py [switches of mrjob and of the job] [input ...]

Runs an mrjob job over ZeroMQ, on all cores of this machine. Without inputs it reads standard input.

  zmqmr-run job.py input.txt                 print the output
  zmqmr-run job.py -o out logs/*.gz          write the output to the folder out
  zmqmr-run job.py -r inline input.txt       use one of mrjob's own runners instead
  zmqmr-run job.py --help -r zeromq          show every switch
  zmqmr-run job.py --detach input.txt        print the job's id and return; see `zmqmr attach`
  zmqmr-run job.py --resume input.txt        take up what an earlier run of this command left
  zmqmr-run --resume JOB [switches]          the same for a job of `zmqmr jobs`, and more switches

Exit status: 0 done, 1 the job failed, 2 wrong usage or input, 3 the coordinator was lost, 130 interrupted.
A failure names a bundle: `zmqmr replay BUNDLE` runs the failed task alone. `zmqmr doctor` checks the machine.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. `argv` is the command line without the program's name."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return EXIT_OK
    if args == ["--version"]:
        print(f"zmqmr-run {__version__}")
        return EXIT_OK
    try:
        return _run(args)
    except ZmqmrError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        from zmqmr.client.endings import reader_has_gone

        if not reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python flushes at its end
        return EXIT_JOB_FAILED
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO) and not error.filename:
            return _fail(f"cannot write to standard output: {error.strerror}", EXIT_JOB_FAILED)
        if not _raised_by_mrjob(error):
            raise
        return _fail(str(error), EXIT_USAGE)


def _run(args: Sequence[str]) -> int:
    if not args:
        raise UsageError(f"no job file is given\n\n{HELP.rstrip()}")
    if args[0] == "--resume":
        args = _resumed(args[1:])
    path, *rest = args
    if path.startswith("-"):
        raise UsageError(f"the job file comes first, then its switches: zmqmr-run JOB.py {path} ...")
    if sys.stdin is None:  # closed; mrjob would look into it
        sys.stdin = open(os.devnull)  # noqa: SIM115  for as long as the process lives
    hook.install()
    # The last -r counts: the user's own one wins, however it is spelt. With one, help is about the runner.
    wants_help = not {"-h", "--help"}.isdisjoint(rest)
    run_job_file(path, rest if wants_help else ["-r", hook.ALIAS, *rest])
    sys.stdout.flush()
    return EXIT_OK


def _resumed(args: Sequence[str]) -> list[str]:
    """The command that takes up the job that `args` begins with: the command after it, or else the job's
    own with the switches after it, in its directory, which this process enters."""
    from zmqmr.client.records import Records
    from zmqmr.client.resume import STANDARD_INPUT
    from zmqmr.settings import Settings

    if not args or args[0].startswith("-"):
        raise UsageError("--resume needs the id of a job next; `zmqmr jobs` lists them")
    if os.path.isfile(args[0]):
        raise UsageError(f"--resume comes after the job file: zmqmr-run {args[0]} --resume ...")
    record = Records.of(Settings.from_environ()).find(args[0])
    more = args[1:]
    if more and not more[0].startswith("-"):
        path, *rest = more
        return [path, "--resume-from", record.job, *rest]
    if any(each.path == STANDARD_INPUT for each in record.inputs) and sys.stdin and sys.stdin.isatty():
        raise UsageError(f"{record.job} read its standard input; give that again, with < or |")
    if not record.script:
        raise UsageError(f"{record.job} was run by a program; run that again")
    try:
        os.chdir(record.cwd)
    except OSError as error:
        raise UsageError(f"cannot enter {record.cwd}, where {record.job} ran: {error.strerror}") from error
    return [record.script, "--resume-from", record.job, *record.arguments, *more]


def _fail(message: str, exit_code: int) -> int:
    print(f"zmqmr-run: {message}", file=sys.stderr)
    return exit_code


def _raised_by_mrjob(error: BaseException) -> bool:
    """Whether mrjob itself raised it, as it does for a missing input; not the job, and not zmqmr."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] == "mrjob"


if __name__ == "__main__":
    sys.exit(main())
