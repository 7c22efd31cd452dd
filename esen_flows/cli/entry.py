"""Entry point of the command `esen-flows`, which handles Ctrl-C during the second that its imports take."""

import sys


def main() -> None:
    """Run the command line.

    Raises
    ------
    SystemExit
        Always; with the exit status of `app.main`, 130 after Ctrl-C during the imports, or 1 where a
        package that it needs cannot be imported.
    """
    try:
        from esen_flows.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("esen-flows: interrupted before the command began", file=sys.stderr)
        raise SystemExit(130) from None
    except ImportError as error:  # `run` ends with SystemExit whatever happens, so that this is an import of ours
        print(
            f"esen-flows: a package cannot be imported: {error}; install this package's requirements again "
            "(./setup.sh in a checkout, pip install esen_flows elsewhere)",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
