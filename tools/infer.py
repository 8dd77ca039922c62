"""The command mmpd-infer, as a script."""
import sys

from mmpd.cli.infer import main

if __name__ == '__main__':
    sys.exit(main())
