"""Starts the operator's command line: `python -m mempressure`."""

import sys

from mempressure.command import main

if __name__ == "__main__":
    sys.exit(main())
