"""`python -m excite` and the console script."""

import sys

from excite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
