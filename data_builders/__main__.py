"""The command ``python -m data_builders NAME --output-dir DIR [flags]``."""

import sys

from data_builders import commandline

if __name__ == '__main__':
    sys.exit(commandline.main(sys.argv[1:]))
