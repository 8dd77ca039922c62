"""The command mmpd-identify, as a script."""
import sys

from mmpd.cli.identify import main

if __name__ == '__main__':
    sys.exit(main())
