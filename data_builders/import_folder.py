"""Import of a folder of .npy files, made by the original HRM, TRM or HRM-Lisp programs.

The set is written as records, which are smaller and load faster. A run can also read such a
folder as it is.
"""

from data_builders import folder_format

EXAMPLES = """example:
  python -m data_builders import data/maze-30x30-hard-1k-npy --output-dir data/maze-30x30-hard-1k
"""


Options = folder_format.ImportOptions
build = folder_format.import_folder
