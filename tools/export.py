"""The command mmpd-export, as a script."""
import sys

from mmpd.cli.export import main

if __name__ == '__main__':
    sys.exit(main())
