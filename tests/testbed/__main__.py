"""`python -m testbed`, in tests/, makes the hosts' root file system, or says why it cannot."""

import sys

from testbed.bed import sweep
from testbed.commands import CommandFailed, missing
from testbed.rootfs import rootfs


def main() -> int:
    """Make the root file system, and take down what killed sessions left."""
    if reason := missing():
        print(f"no testbed: {reason}", file=sys.stderr)
        return 1
    try:
        sweep()
        print(rootfs())
    except CommandFailed as failure:
        print(f"no testbed: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
