"""Entry point of `mempressure-actuator`; prints one line if the extra `actuator` is not installed."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        from mempressure_actuator.command import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mempressure"):
            raise
        print(  # noqa: T201 -- logging is not set up yet
            f"mempressure-actuator: {error.name} is not installed; pip install 'mempressure[actuator]'", file=sys.stderr
        )
        return 1
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
