"""``python -m stadlib``: the command line, and what torchrun starts."""

import sys

from stadlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
