"""Sudoku, maze, Lisp and path finding data against what the originals' builders wrote.

Where an original draws from numpy's or Python's generator, the numbers are drawn here in its
order and the project's transformation of them is compared.
"""

from pathlib import Path
import random

import numpy as np

from data_builders import lisp, maze, pathfinding, sources, sudoku, writing
from experiments.parity import data_folder
from experiments.parity.registry import Fixture, Report, check, read_npz
from hrm_jax.data import augment
from hrm_jax.data.puzzles import PuzzleSet


def _draw_sudoku_map(state: np.random.RandomState) -> np.ndarray:
    """One augmentation in the original's order, as a map."""
    digits = state.permutation(np.arange(1, 10))
    flip = state.rand() < 0.5
    lines = []
    for _ in range(2):
        bands = state.permutation(3)
        lines.append(np.concatenate([band * 3 + state.permutation(3) for band in bands]))
    return np.concatenate([[flip], digits - 1, *lines]).astype(np.uint8)


@check('sudoku', files=('expected.json', 'train.csv', 'test.csv'))
def check_sudoku(fixture: Fixture, report: Report) -> None:
    root = fixture.path
    for case in data_folder.read_json(root / 'expected.json'):
        flags, number = case['flags'], case['case']
        state = np.random.RandomState(case['np_random_seed_before_train'])
        arrays = read_npz(root / f'expected_{number}.npz')
        for split in ('train', 'test'):
            table = sudoku.encode(sources.read_csv(root / f'{split}.csv', ratings=True))
            if flags.get('min_difficulty') is not None:
                table = table.take(table.ratings >= flags['min_difficulty'])
            maps, size = None, flags.get('subsample_size')
            if split == 'train':
                if size is not None and size < len(table.questions):
                    table = table.take(state.choice(len(table.questions), size, replace=False))
                if num_aug := flags.get('num_aug', 0):
                    identity = augment.identity_map('sudoku', 9)
                    maps = np.array([
                        [identity] + [_draw_sudoku_map(state) for _ in range(num_aug)]
                        for _ in table.questions
                    ])  # fmt: skip
            built = sudoku.make_split(table, maps, held_out=False)
            _compare(report, f'case {number}', split, built, case, arrays)
    if (root / 'shuffle.json').is_file():
        _check_shuffles(report, data_folder.read_json(root / 'shuffle.json'))


def _check_shuffles(report: Report, cases: list[dict]) -> None:
    wrong = 0
    for case in cases:
        row = _draw_sudoku_map(np.random.RandomState(case['np_seed']))
        for name in ('board', 'solution'):
            cells = np.array([[int(c) for c in case[name]]], np.uint8) + np.uint8(1)
            moved = augment.apply_sudoku(cells, row[None], 9)[0] - 1
            back = augment.apply_sudoku(
                (moved + 1)[None], augment.inverse_maps('sudoku', row[None], 9), 9
            )
            wrong += ''.join(map(str, moved)) != case[f'aug_{name}'] or (back != cells).any()
    report.below(f'{len(cases)} seeded shuffles and their inverses', wrong, 0)


def _compare(
    report: Report, what: str, split: str, built: writing.Split, case: dict, arrays: dict
) -> None:
    start = f'{split}__'
    own = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
    data_folder.compare_arrays(report, f'{what} {split}', built, own)
    data_folder.compare_metadata(report, f'{what} {split}', built, case['dataset_json'][split])
    hashes = {k[len(split) + 1 :]: v for k, v in case['sha256'].items() if k.startswith(split)}
    small = own['all__inputs'].dtype == np.uint8
    data_folder.compare_files(report, f'{what} {split}', built, hashes, small)


@check('maze')
def check_maze(fixture: Fixture, report: Report) -> None:
    for root in sorted(p.parent for p in fixture.path.rglob('expected.json')):
        _check_maze_folder(report, root)
    turns = fixture.path / 'dihedral.json'
    if turns.is_file():
        cases = data_folder.read_json(turns)
        wrong = 0
        for case in cases:
            grid = np.array(case['grid'], np.uint8)
            kind = case['tid'] if case['tid'] < 8 else 0  # any other id is the identity
            wrong += not np.array_equal(_turn(grid, kind), case['result'])
            wrong += case['tid'] < 8 and augment.INVERSE_DIHEDRAL[kind] != case['inverse_tid']
        report.below(f'{len(cases)} dihedral maps and their inverses', wrong, 0)


def _turn(grid: np.ndarray, kind: int) -> np.ndarray:
    """One grid through the loader's ARC placement, which takes any shape."""
    height, width = grid.shape
    cells = np.zeros((1, augment.ARC_SIDE, augment.ARC_SIDE), np.uint8)
    cells[0, :height, :width] = grid + augment.FIRST_COLOUR
    row = augment.identity_map('arc', augment.ARC_SIDE)[None].copy()
    row[0, 0] = kind
    extents = np.array([[height, width]])
    moved = augment.place_arc(cells.reshape(1, -1), extents, row, np.zeros((1, 2)))
    canvas = moved.reshape(augment.ARC_SIDE, augment.ARC_SIDE)
    height, width = augment.mapped_extents(np.tile(extents, 2), row[:, 0])[0, :2]
    if height == width:
        square = augment.apply_dihedral(grid.reshape(1, -1), row[:, :1], height)
        if not np.array_equal(square.reshape(height, width), canvas[:height, :width] - 2):
            raise ValueError('the two dihedral maps differ')
    return canvas[:height, :width] - np.uint8(augment.FIRST_COLOUR)


def _check_maze_folder(report: Report, root: Path) -> None:
    for case in data_folder.read_json(root / 'expected.json'):
        flags = case['flags']
        state = np.random.RandomState(case['np_random_seed_before_train'])
        arrays = read_npz(root / f'expected_{case["case"]}.npz')
        for split in ('train', 'test'):
            table = maze.encode(sources.read_csv(root / f'{split}.csv'))
            size = flags.get('subsample_size')
            if split == 'train' and size is not None and size < len(table.questions):
                table = table.take(state.choice(len(table.questions), size, replace=False))
            built = maze.make_split(table, bool(flags.get('aug')) and split == 'train')
            _compare(report, f'{root.name} case {case["case"]}', split, built, case, arrays)


@check('lisp', files=('datasets.json',))
def check_lisp(fixture: Fixture, report: Report) -> None:
    root = fixture.path
    for number, case in enumerate(data_folder.read_json(root / 'datasets.json')):
        flags = dict(zip(case['flags'][::2], map(int, case['flags'][1::2]), strict=True))
        count, seed = flags.get('--num-samples', 10000), flags.get('--seed', 42)
        pairs = lisp.draw(count, flags.get('--max-depth', 3), random.Random(seed))
        vocabulary = lisp.make_vocabulary(pairs)
        own = {**vocabulary, lisp.PAD: 0}
        report.below(f'set {number} vocabulary', own != case['vocab'], 0)
        inputs, labels = lisp.encode(pairs, vocabulary, flags.get('--seq-len', 100))
        cut = int(count * 0.9)
        for split, part in (('train', slice(0, cut)), ('test', slice(cut, None))):
            built = writing.one_set(
                PuzzleSet.of_examples(inputs[part], labels[part]),
                vocab_size=len(own), task='lisp',
            )  # fmt: skip
            wanted = case[split]
            data_folder.compare_metadata(
                report, f'set {number} {split}', built, wanted['dataset_json']
            )
            data_folder.compare_files(
                report, f'set {number} {split}', built, wanted['sha256'], True
            )
            longest = [max(len(lisp.tokens(pair[side])) for pair in pairs[part]) for side in (0, 1)]
            said = [wanted.get(f'max_{side}_tokens') for side in ('input', 'label')]
            if None not in said and max(longest) <= built.metadata.seq_len:
                report.equal(f'set {number} {split} longest rows', longest, said)
            stored = read_npz(root / f'dataset_{number}.npz')
            start = f'{split}__'
            arrays = {k[len(start) :]: v for k, v in stored.items() if k.startswith(start)}
            if arrays:
                data_folder.compare_arrays(report, f'set {number} {split}', built, arrays)
    if (root / 'simplify_pairs.json').is_file():
        groups = data_folder.read_json(root / 'simplify_pairs.json')
        cases = [case for group in groups.values() for case in group]
        wrong = 0
        for case in cases:
            parsed = lisp.parse(case['expr'])
            simple = lisp.simplify(parsed)
            wrong += lisp.show_expression(simple) != case['simplified']
            wrong += lisp.tokens(parsed) != case.get('tokens', lisp.tokens(parsed))
            wrong += lisp.tokens(simple) != case.get('simplified_tokens', lisp.tokens(simple))
        report.below(f'{len(cases)} simplifications', wrong, 0)


@check('krychu_boards')
def check_boards(fixture: Fixture, report: Report) -> None:
    names = sorted({k.split('/')[0] for k in fixture.arrays if k.endswith('/input')})
    seeds = fixture.info.get('seeds', {})
    for name in names:
        arrays = fixture.group(f'{name}/')
        count = len(arrays['input'])
        inputs = arrays['input'].reshape(count, -1)
        targets = arrays['target'].reshape(count, -1)
        size = round(inputs.shape[1] ** 0.5)
        solved = inputs.copy()
        for board in solved:
            board[pathfinding.solve(board.tolist(), size)] = pathfinding.PATH
        report.equal(f'{name} paths from the boards', solved, targets)
        if name not in seeds:
            continue
        rng = random.Random(seeds[name])
        if name.startswith('unique'):
            boards, answers = pathfinding.unique_boards(count, size, 0.3, rng)
        else:
            wall_prob = int(name.rsplit('_p', 1)[1]) / 100
            drawn = [pathfinding.draw_board(size, wall_prob, rng) for _ in range(count)]
            boards, answers = ([one[k] for one in drawn] for k in (0, 1))
            if 'attempts' in arrays:
                report.equal(f'{name} attempts', [one[2] for one in drawn], arrays['attempts'])
        report.equal(f'{name} seeded boards', boards, inputs)
        report.equal(f'{name} seeded paths', answers, targets)
    text = fixture.info.get('format_board_target_of_board6_p40_0')
    if text and 'board6_p40' in names:
        shown = np.array([row.split() for row in text.splitlines()])
        tokens = np.vectorize({s: k for k, s in enumerate('.#SE*')}.get)(shown)
        report.equal('drawn board', tokens, fixture.arrays['board6_p40/target'][0])
