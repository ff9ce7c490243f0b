"""``python -m marl_td`` is ``marl-td``."""

import sys

from marl_td.cli import main

if __name__ == "__main__":
    sys.exit(main())
