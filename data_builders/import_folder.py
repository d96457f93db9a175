"""Packs a folder of .npy files made by the original HRM, TRM or HRM-Lisp programs into records.

Such a folder can also be trained on as it is; records are smaller and load faster.
"""

import argparse

from data_builders import folder_format

EXAMPLES = """example:
  python -m data_builders import data/maze-30x30-hard-1k-npy --output-dir data/maze-30x30-hard-1k
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``build``, under their names."""
    parser.add_argument('path', help="folder in the original's format")


build = folder_format.import_folder
