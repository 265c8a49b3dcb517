"""zmqmr replay: run a failed task's input again, alone, in the foreground, with mrjob's own code."""

import argparse
import os
import sys
import tarfile
import tempfile
import traceback
from typing import TYPE_CHECKING

from zmqmr.client.texts import one_line
from zmqmr.data.jobfile import load_job_class
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from zmqmr.worker.repro import Recipe

MEMBERS = ("recipe.json", "input", "bundle")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `replay` to the parser of `zmqmr`."""
    parser = commands.add_parser("replay", help="run a failed task again, alone, in the foreground")
    parser.add_argument("bundle", help="the path that the failure named")
    parser.add_argument("--pdb", action="store_true", help="stop in the debugger where it fails")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the task yields; 0, or 1 when it fails again, with the traceback."""
    from zmqmr.data.bundles import unpack  # imported late: `zmqmr doctor` works without any library

    with tempfile.TemporaryDirectory(prefix="zmqmr-replay-") as directory:
        recipe = _unpack(args.bundle, directory)
        what = one_line(f"{recipe.task} of {recipe.job}, which failed: {recipe.reason}")
        print(f"zmqmr replay: {what}", file=sys.stderr)
        work = os.path.join(directory, "work")
        unpack(os.path.join(directory, "bundle"), recipe.bundle_sha256, work)
        os.chdir(work)
        try:
            return _run(recipe, os.path.join(directory, "input"), args.pdb)
        finally:
            os.chdir("/")


def _unpack(path: str, directory: str) -> "Recipe":
    """The three files of a repro bundle, and no others, whatever the archive holds."""
    import msgspec

    from zmqmr.worker.repro import Recipe

    try:
        with tarfile.open(path) as tar:
            for name in MEMBERS:
                source = tar.extractfile(name)
                if source is None:
                    raise KeyError(name)
                with source, open(os.path.join(directory, name), "wb") as target:
                    while block := source.read(1024**2):
                        target.write(block)
        with open(os.path.join(directory, "recipe.json"), "rb") as file:
            return msgspec.json.decode(file.read(), type=Recipe)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (tarfile.TarError, KeyError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} is not a repro bundle of zmqmr: {error}") from error


def _run(recipe: "Recipe", path: str, debug: bool) -> int:
    os.environ.update(recipe.environment)
    job_class = load_job_class(recipe.script, recipe.argv)
    job = job_class()
    with open(path, "rb") as file:
        job._stdin = file
        try:
            getattr(job, f"run_{recipe.kind}")(recipe.step)
        except Exception as error:
            sys.stdout.flush()
            traceback.print_exception(type(error), error, error.__traceback__)
            if debug:
                import pdb

                pdb.post_mortem(error.__traceback__)
            return EXIT_JOB_FAILED
    sys.stdout.flush()
    print("zmqmr replay: it did not fail this time", file=sys.stderr)
    return EXIT_OK
