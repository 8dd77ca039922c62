"""The command mmpd-make-consistent, as a script."""
import sys

from mmpd.cli.make_consistent import main

if __name__ == '__main__':
    sys.exit(main())
