"""`python -m zmqmr` is `zmqmr`."""

import sys

from zmqmr.cli.main import main

sys.exit(main())
