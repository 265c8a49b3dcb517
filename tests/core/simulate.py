"""Simulated jobs over many seeds: `python -m core.simulate --seeds 10000`, from tests/; `make simulate`.

A seed that fails is printed with what went wrong, and kept in a file; `--seed N` runs it again alone.
"""

import argparse
import random
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from core.harsh import Misfortune, live

# Kinds of worlds, taken in turn.
WORLDS = {
    "all": Misfortune(worker_deaths=1),  # one that dies just after the coordinator costs the job two losses
    "only coordinators die": Misfortune(worker_deaths=0, coordinator_deaths=4, cuts=0, attempts_fail=False),
    "cuts": Misfortune(worker_deaths=0, coordinator_deaths=0, cuts=12),
    "torn journals": Misfortune(worker_deaths=0, torn_journals=True),
    "too much": Misfortune(
        worker_deaths=8, coordinator_deaths=4, cuts=8, torn_journals=True, within_budget=False
    ),
}


def world_of(seed: int) -> str:
    """The kind of world that a seed makes."""
    return list(WORLDS)[seed % len(WORLDS)]


def run(seed: int, workers: int = 0, splits: int = 0) -> tuple[int, str, int]:
    """Run a seed; the seed, what went wrong or "", and the number of events."""
    try:
        world = live(seed, WORLDS[world_of(seed)], workers, splits)
    except Exception:
        return seed, traceback.format_exc(limit=-3), 0
    return seed, "", world.events


def main() -> int:
    """Run the seeds; 1 when one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0); -1: any")
    parser.add_argument("--seed", type=int, help="only this one, with the whole traceback")
    parser.add_argument("--workers", type=int, default=0, help="simulated workers (1 to 4)")
    parser.add_argument("--splits", type=int, default=0, help="map tasks (1 to 6)")
    parser.add_argument("--keep", type=Path, help="a file to which seeds that fail are added")
    args = parser.parse_args()
    if args.seed is not None:
        live(args.seed, WORLDS[world_of(args.seed)], args.workers, args.splits)
        print(f"seed {args.seed} ({world_of(args.seed)}): all promises held")
        return 0
    first = args.first if args.first >= 0 else random.SystemRandom().randrange(10**9)
    begun, failed, events = time.monotonic(), 0, 0
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + args.seeds)
        sizes = [args.workers] * args.seeds, [args.splits] * args.seeds
        for seed, wrong, count in pool.map(run, seeds, *sizes, chunksize=16 if args.seeds > 64 else 1):
            events += count
            if wrong:
                failed += 1
                command = f"--seed {seed} --workers {args.workers} --splits {args.splits}"
                print(f"{command} ({world_of(seed)}): {wrong}", flush=True)
                if args.keep:
                    with args.keep.open("a") as file:
                        file.write(f"{command}  # {wrong.strip().splitlines()[-1]}\n")
    seconds = time.monotonic() - begun
    print(f"{args.seeds} seeds from {first}, {failed} failed; {events:,} events in {seconds:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
