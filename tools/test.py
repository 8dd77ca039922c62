"""The command mmpd-test, as a script."""
import sys

from mmpd.cli.test import main

if __name__ == '__main__':
    sys.exit(main())
