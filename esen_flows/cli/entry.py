"""Entry point of the command `esen-flows`, which handles Ctrl-C during the second that its imports take."""

import sys


def main() -> None:
    """Run the command line.

    Raises
    ------
    SystemExit
        Always; with the exit status of `app.main`, or 130 after Ctrl-C during the imports.
    """
    try:
        from esen_flows.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("esen-flows: interrupted before the command began", file=sys.stderr)
        raise SystemExit(130) from None
