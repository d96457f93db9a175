"""Export of a built data set as a folder of .npy files, for the original HRM or TRM programs.

Augmentations are applied and written out, so the folder can be hundreds of times larger.
"""

from data_builders import folder_format

EXAMPLES = """examples:
  python -m data_builders export data/sudoku-extreme-1k --output-dir exported
  python -m data_builders export data/arc-1-aug-1000 --output-dir exported --form trm
"""


Options = folder_format.ExportOptions
build = folder_format.export_folder
