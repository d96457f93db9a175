"""Small sources for the builders' tests."""

import csv
import gzip
import json

import numpy as np

from hrm_jax.data.puzzles import stored_examples

FULL = '534678912672195348198342567859761423426853791713924856961537284287419635345286179'
BOARD = '53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79'


def write_csv(path, rows, header=('source', 'question', 'answer', 'rating')):
    """Writes a CSV file, packed when its name says so."""
    opener = gzip.open if path.suffix == '.gz' else open
    with opener(path, 'wt', newline='') as file:
        csv.writer(file).writerows([header, *rows])


def sudoku_folder(root, question=BOARD, answer=FULL, test=None):
    """Three training boards (the second is the one given) and one that differs for testing."""
    root.mkdir(exist_ok=True)
    turned = ''.join(str(10 - int(c)) if c.isdigit() else c for c in BOARD)
    solved = ''.join(str(10 - int(c)) for c in FULL)
    rows = [('a', BOARD.replace('.', '0'), FULL, 5), ('b', question, answer, 7),
            ('c', FULL[:80] + '.', FULL, 0)]  # fmt: skip
    write_csv(root / 'train.csv', rows)
    write_csv(root / 'test.csv.gz', [test or ('d', turned, solved, 6)])
    return str(root)


def cells(dataset, count=None):
    """The first examples of a data set, or all: tokens of questions and answers."""
    puzzles = dataset.sets['all']
    return stored_examples(puzzles, dataset.metadata, np.arange(count or puzzles.num_examples))


def arc_tree(root, **changes):
    """Two training puzzles and two for evaluation, small."""
    rng = np.random.default_rng(0)

    def pair(h, w, colours=10):
        return {'input': rng.integers(0, colours, (h, w)).tolist(),
                'output': rng.integers(0, colours, (w, h)).tolist()}  # fmt: skip

    tree = {
        'training/aa.json': {'train': [pair(3, 4), pair(2, 2)], 'test': [pair(5, 5)]},
        'training/bb.json': {'test': [pair(1, 2, 2)], 'train': [pair(2, 1, 2)]},
        'evaluation/cc.json': {'train': [pair(30, 2)], 'test': [pair(4, 4), pair(7, 3)]},
        'evaluation/dd.json': {'name': 'ee', 'train': [pair(2, 3)], 'test': [pair(3, 3)]},
        **changes,
    }
    for name, content in tree.items():
        path = root / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(root)
