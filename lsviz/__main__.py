"""``lsviz`` and ``python -m lsviz``."""

import sys


def main() -> int:
    """Run the command line and return the exit code; stopped while it is still loading, too."""
    try:
        from lsviz.cli import main as run_command
    except KeyboardInterrupt:
        sys.stderr.write("lsviz: stopped\n")
        return 130
    return run_command()


if __name__ == "__main__":
    sys.exit(main())
