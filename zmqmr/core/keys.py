"""Content keys: tasks with one key yield the same, in whatever run of the job they are.

A key covers all that a task's records may depend on: the job's code and arguments, the settings that its
tasks see, the interpreter and its libraries, and the identity of the input: of files, or of the tasks before
it. Not the number of a map task, so that a job with one input more knows the others again.
"""

import hashlib
from collections import Counter
from functools import cached_property

from msgspec.structs import replace

from zmqmr.core.plan import StagePlan
from zmqmr.messages import CACHE_LISTS, JobSpec, Step, encode

_VERSION = 1  # of what goes into a key


class Keys:
    """The content keys of a job's tasks, as file names of 40 hexadecimal digits."""

    def __init__(self, spec: JobSpec, plans: tuple[StagePlan, ...], environment: str):
        """`environment`: the versions of the interpreter and the libraries that run the tasks."""
        self._spec, self._plans, self._environment = spec, plans, environment
        self._stages: dict[int, bytes] = {}

    def of(self, stage: int, number: int) -> str:
        """The key of a task."""
        plan = self._plans[stage]
        if plan.source is None:
            found = encode((self._spec.splits[number], self._earlier_alike[number]))
        else:
            found = encode((number, self._everything(plan.source)))
        return _digest(self._job, encode((plan.links, plan.combine, plan.partitions)), found).hex()[:40]

    def _everything(self, stage: int) -> bytes:
        """What the whole output of a stage depends on."""
        digest = self._stages.get(stage)
        if digest is None:
            keys = [self.of(stage, number) for number in range(self._plans[stage].tasks)]
            digest = self._stages[stage] = _digest(encode(keys))
        return digest

    @cached_property
    def _earlier_alike(self) -> list[int]:
        """For each split, how many before it are the same: an input may be given twice, and random jobs yield
        something else each time."""
        seen: Counter[bytes] = Counter()
        found = []
        for split in self._spec.splits:
            content = encode(split)
            found.append(seen[content])
            seen[content] += 1
        return found

    @cached_property
    def _job(self) -> bytes:
        spec = self._spec
        return _digest(
            encode(
                (
                    _VERSION,
                    self._environment,
                    spec.script,
                    spec.job_class,
                    spec.task_args,
                    [_without_paths(step) for step in spec.steps],
                    spec.input_mode,
                    spec.bundle_sha256,
                    sorted(spec.cmdenv.items()),
                    spec.python_path,
                    spec.task_python,
                    spec.sh,
                    spec.sort,
                    spec.setup_script,
                )
            )
        )


def _without_paths(step: Step) -> Step:
    """The step without where its files were: a resumed job has them elsewhere, and the bundle tells them."""
    conf = {name: value for name, value in step.jobconf.items() if name not in CACHE_LISTS}
    return replace(step, jobconf=conf)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
