"""``python -m lsviz``: the same as ``lsviz``."""

import sys

from lsviz.cli import main

if __name__ == "__main__":
    sys.exit(main())
