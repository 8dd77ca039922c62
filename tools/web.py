"""The command mmpd-web, as a script."""
import sys

from mmpd.cli.web import main

if __name__ == '__main__':
    sys.exit(main())
