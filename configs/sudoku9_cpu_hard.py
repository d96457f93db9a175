r"""The second part of the shipped 9x9 solver: hard boards too, from the weights of sudoku9_cpu.

    python -m experiments.sudoku9 boards --output-dir data/sudoku9-boards \
        --hard train.csv.gz --hard-test test.csv.gz
    python -m data_builders sudoku --output-dir data/sudoku9-hard --source data/sudoku9-boards \
        --num-aug 20 --hints
    python -m hrm_jax.main --config=configs/sudoku9_cpu_hard.py --workdir=runs/sudoku9_cpu_hard \
        --checkpoint=runs/sudoku9_cpu

Hard boards hold their slot for all steps while the model does not solve them, so a model that has
learned nothing yet would spend its time on them.
"""

from configs import sudoku9_cpu


def get_config():
    config = sudoku9_cpu.get_config()
    config.name = 'sudoku9_cpu_hard'
    config.data.path = 'data/sudoku9-hard'
    config.act.halt_max_steps = 16
    config.optimizer.lr = 0.001
    return config
