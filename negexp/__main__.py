"""`python -m negexp` is the console script."""

import sys

from negexp.cli import main

if __name__ == "__main__":
    sys.exit(main())
