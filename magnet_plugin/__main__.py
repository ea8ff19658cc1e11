"""`python -m magnet_plugin`: the `magnet` command."""
import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
