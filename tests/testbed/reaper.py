"""Takes a testbed down when its process has ended without doing so: `python -m testbed.reaper FOLDER`.

It holds the reading end of a pipe whose writing end only that process has.
"""

import sys
from pathlib import Path

from testbed.bed import Testbed

if __name__ == "__main__":
    sys.stdin.read()
    folder = Path(sys.argv[1])
    if folder.exists():
        Testbed(folder).down()
