"""``python -m marl_td.cli``."""

import sys

from marl_td.cli import main

if __name__ == "__main__":
    sys.exit(main())
