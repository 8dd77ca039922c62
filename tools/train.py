"""The command mmpd-train, as a script."""
import sys

from mmpd.cli.train import main

if __name__ == '__main__':
    sys.exit(main())
