"""Batches against the original's puzzle_dataset.py, in test mode and in seeded train mode."""

import hashlib
from types import SimpleNamespace

import numpy as np

from experiments.parity import data_folder
from experiments.parity.registry import Fixture, Report, check, read_npz
from hrm_jax import partitioning
from hrm_jax.data import pipeline, sampling
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleDataset, PuzzleSet
from hrm_jax.errors import ConfigError
from hrm_jax.types import IGNORE_LABEL_ID


@check('puzzle_dataset', files=('expected.json',))
def check_batches(fixture: Fixture, report: Report) -> None:
    expected = data_folder.read_json(fixture.path / 'expected.json')
    arrays = read_npz(fixture.folder / expected['dataset'])
    runs = data_folder.read_json((fixture.folder / expected['dataset']).parent / 'expected.json')
    name = expected['dataset'].rsplit('expected_n', 1)[1].removesuffix('.npz')
    facts = runs['runs'][f'num_aug={name.replace("_", "/", 1)}']
    sets = {split: _dataset(arrays, split, facts[split]['dataset_json'])
            for split in ('train', 'test')}  # fmt: skip
    _check_test_mode(report, sets['test'], expected['test'])
    for case in expected.get('group_order', []):
        order = _group_order(sets['train'], case, expected['train'][0]['seed'])
        report.equal(f'order of groups, pass {case["iteration"]}', order, case['order'])
    _check_train_mode(report, sets['train'], expected['train'])
    _check_rules(report, sets['train'], expected)


def _dataset(arrays: dict[str, np.ndarray], split: str, metadata: dict) -> PuzzleDataset:
    own = {f: arrays[f'{split}__all__{f}'] for f in data_folder.ARRAYS}
    indices = own['puzzle_indices'].astype(np.int64)
    puzzles = PuzzleSet(
        inputs=own['inputs'],
        labels=own['labels'],
        group_indices=own['group_indices'].astype(np.int64),
        puzzle_indices=indices,
        puzzle_first=indices[:-1],
        puzzle_identifiers=own['puzzle_identifiers'],
    )
    known = {k: v for k, v in metadata.items() if k != 'sets'}
    return PuzzleDataset(DatasetMetadata(**known), {'all': puzzles})


def _short_hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values)).hexdigest()[:16]


def _differences(batch, wanted: dict) -> int:
    wrong = int(batch.inputs.shape != tuple(_shape(wanted)))
    wrong += list(batch.puzzle_identifiers) != wanted['puzzle_identifiers']
    wrong += _short_hash(batch.inputs) != wanted['inputs_sha']
    return wrong + (_short_hash(batch.labels) != wanted['labels_sha'])


def _rows_of_process(size: int, rank: int, count: int) -> np.ndarray:
    return np.arange(size).reshape(count, -1)[rank]


def _shape(wanted: dict) -> list[int]:
    return wanted['shape']['inputs'] if isinstance(wanted['shape'], dict) else wanted['shape']


def _check_test_mode(report: Report, dataset: PuzzleDataset, cases: list[dict]) -> None:
    for case in cases:
        size, count, rank = case['global_batch_size'], case['num_replicas'], case['rank']
        own = list(pipeline.eval_batches(dataset, size, _rows_of_process(size, rank, count)))
        wrong = abs(len(own) - len(case['batches']))
        for (name, batch, real), wanted in zip(own, case['batches'], strict=False):
            wrong += (name, real) != (wanted['set'], wanted['effective_global'])
            wrong += _differences(batch, wanted)
        report.below(f'test mode, batch {size}, process {rank} of {count}', wrong, 0)


def _group_order(dataset: PuzzleDataset, case: dict, seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(seed=seed + case['iteration']))
    groups = dataset.sets['all'].num_groups
    return np.concatenate([rng.permutation(groups) for _ in range(case['epochs_per_iter'])])


def _original_batches(dataset: PuzzleDataset, case: dict, iteration: int) -> list[np.ndarray]:
    """The examples of one pass in the original's order, with its two generators."""
    puzzles, size = dataset.sets['all'], case['global_batch_size']
    rng = np.random.Generator(np.random.Philox(seed=case['seed'] + iteration))
    examples = np.random.RandomState(case['np_random_seed_each_iter'])
    order = np.concatenate([
        rng.permutation(puzzles.num_groups) for _ in range(case['epochs_per_iter'])
    ])  # fmt: skip
    batches, batch = [], []
    for group in order:
        chosen = rng.integers(puzzles.group_indices[group], puzzles.group_indices[group + 1])
        start, stop = puzzles.puzzle_indices[chosen : chosen + 2]
        room = min(stop - start, size - len(batch))
        batch += (start + examples.choice(stop - start, room, replace=False)).tolist()
        if len(batch) == size:
            batches.append(np.array(batch))
            batch = []
    return batches


def _check_train_mode(report: Report, dataset: PuzzleDataset, cases: list[dict]) -> None:
    for case in cases:
        size, count, rank = case['global_batch_size'], case['num_replicas'], case['rank']
        rows = _rows_of_process(size, rank, count)
        wrong = 0
        for number, wanted in enumerate(case['iters']):
            order = _original_batches(dataset, case, number + 1)
            wrong += len(order) != case['n_batches'][number]
            for examples, facts in zip(order, wanted, strict=False):
                batch = pipeline.gather(dataset.sets['all'], dataset.metadata, examples, rows=rows)
                wrong += _differences(batch, facts)
                ignored = int((batch.labels == IGNORE_LABEL_ID).sum())
                wrong += ignored != facts['label_ignore_count']
                wrong += int((batch.labels == 0).sum()) != facts['label_zero_count']
        report.below(f'train mode, batch {size}, process {rank} of {count}', wrong, 0)


def _check_rules(report: Report, dataset: PuzzleDataset, expected: dict) -> None:
    """What our own order must keep, and where it fixes the original's."""
    puzzles, metadata = dataset.sets['all'], dataset.metadata
    facts = expected.get('throughput')
    if facts:
        size, epochs = facts['global_batch_size'], facts['epochs_per_iter']
        steps = sampling.total_steps(metadata, epochs, size)
        report.equal('number of steps', steps, int(facts['formula_total_steps']))
        plan = sampling.BatchPlan([puzzles], size, seed=0)
        batches = [next(plan) for _ in range(steps)]
        report.below('batches that are not full', sum(len(b) != size for b in batches), 0)
        owners = np.diff(puzzles.puzzle_indices)
        broken = 0
        for batch in batches:
            rows, _ = puzzles.owners(batch)
            cuts = np.flatnonzero(np.append(True, np.diff(rows) != 0))
            runs = np.diff(np.append(cuts, size))
            whole = runs % owners[rows[cuts]] == 0
            broken += (~whole[:-1]).sum()
        report.below('puzzles split before the end of a batch', broken, 0)
    if 'indivisible_batch_error' in expected:
        try:
            mesh = SimpleNamespace(shape={'data': 4, 'fsdp': 1})
            partitioning.check_batch_size('train.global_batch_size', 10, mesh)
            refused = False
        except ValueError:
            refused = True
        report.below('a batch that does not divide is refused', not refused, 0)
    if expected.get('batch_larger_than_epoch_yields') == 0:
        try:
            sampling.total_steps(metadata, 1, 10**6)
            refused = False
        except ConfigError:
            refused = True
        report.below('a batch that cannot be filled is refused', not refused, 0)
