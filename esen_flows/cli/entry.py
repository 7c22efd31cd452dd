"""Where the command `esen-flows` begins. Its imports take a second, in which Ctrl-C is an ordinary end too."""

import sys


def main() -> None:
    """Run the command line; as `app.main`, always ends in SystemExit."""
    try:
        from esen_flows.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("esen-flows: interrupted before it began", file=sys.stderr)
        raise SystemExit(130) from None
