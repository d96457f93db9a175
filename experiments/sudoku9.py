r"""The installed 9x9 Sudoku solver: its boards, and its weights out of a run.

    python -m experiments.sudoku9 boards --output-dir data/sudoku9-boards \
        --hard train.csv.gz --hard-test test.csv.gz
    python -m experiments.sudoku9 ship runs/sudoku9_cpu

``boards`` writes train.csv and test.csv for the builder: generated boards, and with ``--hard`` (a
file with the columns question and answer) hard ones for training. The test boards are generated
ones. No training board is equal to a test board or to one of ``--hard-test``, whatever rows,
columns, bands, stacks and digits are exchanged: those that might be are left out, by a comparison
that no such exchange changes.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from data_builders import board_text, sources, sudoku, sudoku_boards
from hrm_jax import files
from hrm_jax.cli import common

SIZE = 9


def fingerprints(boards_NS: np.ndarray) -> np.ndarray:
    """What no symmetry of Sudoku changes of a board, as one number each; uint64 [N].

    Of every given cell: how many givens its row, its column, its box and its digit have, rows and
    columns in either order. Equal boards have equal numbers; different ones nearly never.

    Args:
      boards_NS: digits, 0 for an empty cell; uint8 [N, 81].
    """
    count = len(boards_NS)
    given_NRC = (boards_NS > 0).reshape(count, SIZE, SIZE)
    rows = np.broadcast_to(given_NRC.sum(2)[:, :, None], given_NRC.shape)
    columns = np.broadcast_to(given_NRC.sum(1)[:, None, :], given_NRC.shape)
    boxes = given_NRC.reshape(count, 3, 3, 3, 3).sum((2, 4))
    boxes = boxes.repeat(3, axis=1).repeat(3, axis=2)
    digits = (boards_NS[:, :, None] == np.arange(SIZE + 1)).sum(1)
    digits = np.take_along_axis(digits, boards_NS.astype(np.int64), axis=1).reshape(rows.shape)
    weights = np.random.default_rng(0).integers(1, 1 << 63, 10_000, np.uint64)

    def number(first, second):
        cells = np.where(given_NRC, ((first * 10 + second) * 10 + boxes) * 10 + digits, 0)
        return weights[cells.reshape(count, -1)].sum(1, dtype=np.uint64)

    return np.minimum(number(rows, columns), number(columns, rows))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Questions and answers of a CSV file, digits uint8 [N, 81] each."""
    table = sudoku.encode(sources.read_csv(path, ratings=False, flat=board_text.flat_sudoku))
    return table.questions, table.answers


def write(path: Path, questions: np.ndarray, answers: np.ndarray) -> None:
    """Writes a file that ``read`` reads."""
    with path.open('w') as file:
        file.write('question,answer\n')
        for pair in zip(questions, answers, strict=True):
            file.write(','.join(''.join(map(str, side)) for side in pair) + '\n')


def build(args: argparse.Namespace) -> None:
    """Writes the boards."""
    rng = np.random.default_rng(args.seed)
    made = sudoku_boards.generate(SIZE, args.train_count, args.test_count, rng, show=True)
    train, test = ((made[name].questions, made[name].answers) for name in ('train', 'test'))
    held_out = [fingerprints(test[0])]
    if args.hard_test:
        held_out.append(fingerprints(read(args.hard_test)[0]))
    if args.hard:
        hard = read(args.hard)
        chosen = rng.permutation(len(hard[0]))[: args.hard_count]
        train = tuple(np.concatenate([a, b[chosen]]) for a, b in zip(train, hard, strict=True))
    leaks = np.isin(fingerprints(train[0]), np.concatenate(held_out))
    print(f'{leaks.sum()} of {len(leaks)} training boards may equal a test board; left out')
    with files.new_folder(args.output_dir) as folder:
        write(folder / 'train.csv', *(side[~leaks] for side in train))
        write(folder / 'test.csv', *test)


def ship(args: argparse.Namespace) -> None:
    """Writes the weights of a run into the package, where ``Solver.pretrained`` finds them."""
    from hrm_jax.interop import formats, pretrained

    saved, _ = formats.open_model(args.run)
    config = saved.config
    data = dataclasses.replace(config.data, path='data/sudoku9')
    section = dataclasses.replace(
        config.eval, halt_max_steps=args.steps, max_examples=0, halting='max'
    )
    # Its halting logit stops too early to be left the choice; the rules are checked afterwards.
    act = dataclasses.replace(config.act, halting='fixed')
    config = dataclasses.replace(config, name='sudoku9', data=data, eval=section, act=act)
    saved = dataclasses.replace(saved, config=config)
    path = pretrained.FOLDER / 'sudoku9.safetensors'
    formats.save(saved, path, 'safetensors', overwrite=True)
    print(f'wrote {path}, {path.stat().st_size / 1e3:.0f} kB; now write its card, {path.stem}.md')


def main(argv=None) -> None:
    """Reads the command line and runs one of the two parts."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.sudoku9', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parts = parser.add_subparsers(required=True)
    data = parts.add_parser('boards', help='write train.csv and test.csv')
    data.add_argument('--output-dir', required=True, help='folder to make')
    data.add_argument('--hard', type=Path, help='CSV file of hard boards to train on')
    data.add_argument('--hard-test', type=Path, help='CSV file of boards never to train on')
    data.add_argument('--hard-count', type=int, default=18_000, help='of them (default: 18000)')
    data.add_argument('--train-count', type=int, default=6_000, help='generated (default: 6000)')
    data.add_argument('--test-count', type=int, default=1_000, help='generated (default: 1000)')
    data.add_argument('--seed', type=int, default=0, help='default: 0')
    data.set_defaults(run_part=build)
    shipped = parts.add_parser('ship', help='write the weights of a run into the package')
    shipped.add_argument('run', help='folder of the run, or a checkpoint')
    shipped.add_argument('--steps', type=int, default=16, help='ACT steps (default: 16)')
    shipped.set_defaults(run_part=ship)
    arguments = parser.parse_args(argv)
    arguments.run_part(arguments)


if __name__ == '__main__':
    common.run(main)
