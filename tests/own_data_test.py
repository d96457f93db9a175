"""A user's own file: one command builds the data set, trains, resumes, and evaluates."""

import json
import random

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from hrm_jax.checkpoint import layout
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import records
from hrm_jax.errors import ConfigError, DatasetError
from hrm_jax.run import build_data
from tests import commands, tiny_run
from tests.builder_sources import write_csv


def grids(path, count=40, seed=0):
    """Writes 8x8 grids to be mirrored."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        grid = [''.join(rng.choices('.ab', k=8)) for _ in range(8)]
        rows.append(('\n'.join(grid), '\n'.join(row[::-1] for row in grid)))
    write_csv(path, rows, header=('question', 'answer'))
    return path


def built(workdir, **data):
    config = ExperimentConfig.from_dict({'data': {k: str(v) for k, v in data.items()}})
    logged = []
    path = build_data.with_built_data(config, workdir, logged.append).data.path
    return path, json.loads((workdir / 'dataset' / records.MANIFEST).read_text()), logged


def test_one_command_trains_resumes_and_evaluates(tmp_path):
    csv = grids(tmp_path / 'mine.csv')
    config = tiny_run.write_config_file(
        tmp_path / 'config.py', '', train={'max_steps': 3, 'epochs': 32, 'eval_interval': 32}
    )
    run = tmp_path / 'run'
    command = (f'--config={config}', f'--config.data.source={csv}', f'--workdir={run}')

    def runs(*more, expected=0):
        code, text = commands.run(tmp_path / 'out.txt', *command, *more)
        assert code == expected, text
        assert 'Traceback' not in text
        return text

    assert 'backbone' in runs('--dry_run')
    assert not run.exists()
    first = runs()
    assert f'custom: {run / "dataset"}' in first
    assert 'train 36 groups' in first
    assert 'done: 3 steps' in first
    again = runs('--config.train.max_steps=5')
    assert 'custom:' not in again
    assert 'resumed from step 3' in again
    assert layout.steps(run)[-1] == 5
    assert 'eval/all/exact_accuracy' in runs('--mode=eval')

    grids(csv, seed=1)
    for mode in ('train', 'eval'):
        changed = runs(f'--mode={mode}', '--config.train.max_steps=6', expected=1)
        assert f'the content of {csv} has changed' in changed
        assert 'another --workdir' in changed
    csv.write_text('question,answer\n"ab\nc","ab\ncd"\n')
    broken = commands.run(tmp_path / 'out.txt', *command[:2], f'--workdir={tmp_path / "other"}')
    assert broken[0] == 1
    assert 'record 1, question: all rows of a grid must have one length' in broken[1]


def test_the_set_is_kept_while_file_and_flags_are_the_same(tmp_path):
    run = tmp_path / 'run'
    csv = grids(tmp_path / 'mine.csv')
    path, manifest, logged = built(run, source=csv)
    assert path == str(run / 'dataset')
    assert (manifest['counts']['test']['examples'], logged) == (4, [])
    assert built(run, source=csv)[1:] == (manifest, [])
    moved = csv.rename(tmp_path / 'moved.csv')
    assert built(run, source=moved)[1:] == (manifest, [])

    _, manifest, logged = built(run, source=moved, source_flags='--test-fraction 0.5 --seed 1')
    assert manifest['counts']['test']['examples'] == 20
    assert '--test-fraction was 0.1, is 0.5' in logged[0]
    grids(moved, seed=1)
    (run / 'checkpoints' / '3').mkdir(parents=True)
    with pytest.raises(DatasetError, match='started with other data') as error:
        built(run, source=moved, source_flags='--test-fraction 0.5')
    assert '--seed was 1, is 0; the content of' in str(error.value)
    moved.unlink()
    assert 'does not exist any more' in built(run, source=moved)[2][0]


def test_wrong_requests(tmp_path):
    with pytest.raises(DatasetError, match='does not exist'):
        built(tmp_path / 'run', source=tmp_path / 'none.csv')
    assert not (tmp_path / 'run').exists()
    with pytest.raises(DatasetError, match='must not have --output-dir=x'):
        built(tmp_path, source=grids(tmp_path / 'a.csv'), source_flags='--output-dir=x')
    with pytest.raises(ConfigError, match=r'Set data\.source, or leave the flags out'):
        built(tmp_path, source_flags='--words')
    assert not (tmp_path / 'dataset').exists()
