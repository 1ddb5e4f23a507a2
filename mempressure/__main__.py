"""Starts the operator's command line: `python -m mempressure`."""

import sys

from mempressure.cli import main

if __name__ == "__main__":
    sys.exit(main())
