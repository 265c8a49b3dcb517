"""The output directories of a job, claimed before anything is begun."""

import os
from contextlib import ExitStack

from zmqmr.client.endings import uninterrupted
from zmqmr.data.outputs import OutputDirectory, local_path
from zmqmr.errors import UsageError


def claim_outputs(
    output_dir: str, step_output_dir: str, steps: int, undo: ExitStack
) -> tuple[OutputDirectory | None, OutputDirectory]:
    """Claim the directory of the steps' output, if one is given and there are several steps, and that of the
    job's; `undo` discards them. UsageError when that is not possible."""
    output = OutputDirectory(local_path(output_dir))
    step_output = None
    if step_output_dir and steps > 1:
        step_output = OutputDirectory(local_path(step_output_dir), "--step-output-dir")
        if os.path.commonpath([step_output.path, output.path]) in (step_output.path, output.path):
            raise UsageError("--step-output-dir and --output-dir must not contain each other; change one")
    for directory in filter(None, (output, step_output)):
        directory.claim()
        undo.callback(uninterrupted, directory.discard)
    if step_output:
        for number in range(steps - 1):
            os.mkdir(os.path.join(step_output.path, f"{number:04d}"))
    return step_output, output


def complete_outputs(step_output: OutputDirectory | None, output: OutputDirectory) -> None:
    """Mark them complete: those of the steps, then the job's."""
    if step_output:
        numbered = os.scandir(step_output.path)
        step_output.commit(sorted(entry.path for entry in numbered if entry.is_dir()))
    output.commit()
