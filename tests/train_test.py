"""Bad input and the ways in which a run ends. Processes are shared where one is needed."""

import json
import os
import pathlib
import resource
import signal
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hrm_jax import eval_checkpoint, partitioning, train
from hrm_jax.checkpoint import layout
from hrm_jax.errors import CheckpointError, ConfigError, DatasetError, WorkdirError
from hrm_jax.run import estimate, workdir
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('train') / 'data')


def _config(data, **sections):
    train_section = {'max_steps': 10} | sections.pop('train', {})
    return tiny_run.config(data, train=train_section, **sections)


@pytest.fixture(scope='module')
def done(data, tmp_path_factory):
    """A finished run of 10 steps."""
    folder = tmp_path_factory.mktemp('done') / 'run'
    return folder, train.train(_config(data), folder)


def _records(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_run_leaves_records_speeds_and_checkpoints(done):
    folder, outcome = done
    records = _records(folder)
    assert [record['step'] for record in records] == list(range(1, 11))
    wanted = {'train/lm_loss', 'train/exact_accuracy', 'train/steps', 'train/q_halt_mean',
              'train/lr', 'train/puzzle_emb_lr'}  # fmt: skip
    assert all(wanted <= record.keys() for record in records)
    assert [r['step'] for r in records if 'eval/all/exact_accuracy' in r] == [10]
    assert records[-1]['eval/all/lm_loss'] == outcome.metrics['eval/all/lm_loss']
    assert records[0]['train/lr'] == pytest.approx(1e-3 / 4)
    assert layout.steps(folder)[-1] == 10
    timing = [json.loads(line) for line in (folder / 'timing.jsonl').read_text().splitlines()]
    assert any(line.get('steps_per_second', 0) > 0 for line in timing)
    assert json.loads((folder / 'config.json').read_text())['model']['vocab_size'] == 5


def test_a_finished_run_stays_as_it_is(done, data):
    folder, outcome = done
    before = (folder / 'metrics.jsonl').read_bytes()
    assert train.train(_config(data), folder).metrics == outcome.metrics
    assert (folder / 'metrics.jsonl').read_bytes() == before


def test_a_saved_model_scores_as_it_did_in_the_run(done, data):
    folder, outcome = done
    logged = []
    for selector in ('latest', '10', str(folder)):
        config = _config(data)
        values = eval_checkpoint.evaluate_checkpoint(config, folder, selector, logged.append)
        assert values.pop('eval/all/exact_accuracy_stderr') >= 0  # not computed during training
        assert values.pop('eval/all/gflops') > 0
        assert values == outcome.metrics
    some = _config(data, eval={'max_examples': 3, 'use_ema': False})
    assert eval_checkpoint.evaluate_checkpoint(some, folder, log=logged.append) != outcome.metrics
    assert sum('moving average' in text for text in logged) == 3
    with pytest.raises(CheckpointError, match=r'model\.num_heads: 2 in the checkpoint, 4 now'):
        eval_checkpoint.evaluate_checkpoint(_config(data, model={'num_heads': 4}), folder)


def test_a_new_run_can_take_over_weights(done, data, tmp_path):
    folder, outcome = done
    logged = []
    config = _config(data, train={'max_steps': 1}, seed=5)
    new = train.train(config, tmp_path / 'new', str(folder), log=logged.append)
    assert any('new run with the weights of step 10' in text for text in logged)
    assert new.step == 1
    change = jax.tree.map(
        lambda one, other: np.abs(np.float32(one) - np.float32(other)).max(),
        new.state.weights,
        outcome.state.weights,
    )  # one warm-up step away, a quarter of the learning rates
    assert max(jax.tree.leaves(change.params)) < 1e-3
    assert max(jax.tree.leaves(change.constants)) == 0
    assert change.puzzle_table < 3e-3
    logged.clear()
    train.train(config, tmp_path / 'new', str(folder), log=logged.append)
    assert any('was for the start only' in text for text in logged)
    with pytest.raises(CheckpointError, match='another model'):
        train.train(_config(data, model={'num_heads': 4}), tmp_path / 'other', str(folder))


@pytest.mark.parametrize(
    ('metric', 'mode', 'cut', 'step'),
    # Nothing exceeds a best value by 9: evaluations at 10, 20, 30; log lines at 3, 6, 9.
    # The run is cut in between, so the counts must come back from the checkpoint.
    [('eval/all/accuracy', 'max', 20, 30), ('train/lm_loss', 'min', 7, 9)],
)
def test_early_stopping_counts_evaluations_or_log_lines(data, tmp_path, metric, mode, cut, step):
    stopping = {'metric': metric, 'mode': mode, 'patience': 2, 'min_delta': 9.0}
    config = _config(data, train={'max_steps': 0, 'early_stopping': stopping})
    short = _config(data, train={'max_steps': cut, 'early_stopping': stopping})
    assert train.train(short, tmp_path).step == cut
    logged = []
    outcome = train.train(config, tmp_path, log=logged.append)
    assert outcome.step == step
    assert outcome.metrics
    assert 'stopped early' in logged[-1]
    assert train.train(config, tmp_path).step == step


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(data, tmp_path):
    train.train(_config(data, train={'max_steps': 3}), tmp_path)
    good = layout.steps(tmp_path)
    broken = tiny_run.config(data)
    path = layout.resolve('latest', tmp_path)
    meta = layout.read_meta(path)
    meta['config']['optimizer']['lr'] = 1e30  # as if it had been so from the start
    (path / 'meta' / 'metadata').write_text(json.dumps(layout.sealed(meta)))
    values = broken.to_dict()
    values['optimizer']['lr'] = 1e30
    with pytest.raises(FloatingPointError, match=r'step [45] .*not finite.*checkpoints/3') as error:
        train.train(type(broken).from_dict(values), tmp_path)
    assert '--checkpoint=3 --config.optimizer.lr=' in str(error.value)
    assert layout.steps(tmp_path) == good


def test_a_dry_run_says_what_is_needed_and_writes_nothing(data, capsys):
    estimate.dry_run(_config(data))
    text = capsys.readouterr().out
    for word in ('backbone', 'total', '26,818', 'memory:', 'steps: 10 of 8', 'checkpoint:'):
        assert word in text


def test_wrong_configurations_and_data_are_refused_before_anything_is_written(
    data, done, tmp_path, monkeypatch
):
    def refused(kind, match, folder=data, **sections):
        with pytest.raises(kind, match=match):
            train.train(_config(folder, **sections), tmp_path / 'run')

    refused(DatasetError, 'python -m data_builders sudoku', tmp_path / 'sudoku-1')
    refused(ConfigError, 'checkpoint.best_metric must be one of eval/all/accuracy',
            checkpoint={'best_metric': 'eval/al/accuracy'})  # fmt: skip
    refused(ConfigError, 'fill no batch of 800', train={'global_batch_size': 800})
    half = tiny_run.write_dataset(tmp_path / 'half')
    (half / 'train' / 'all__labels.npy').write_bytes(b'\x93NUMPY')
    refused(DatasetError, 'labels', half)
    outside = tiny_run.write_dataset(tmp_path / 'outside')
    labels = np.load(outside / 'train' / 'all__labels.npy')
    labels[0, 0] = 77
    np.save(outside / 'train' / 'all__labels.npy', labels)
    refused(DatasetError, '77', outside)
    identifiers = tiny_run.write_dataset(tmp_path / 'identifiers')
    metadata = json.loads((identifiers / 'test' / 'dataset.json').read_text())
    metadata['num_puzzle_identifiers'] = 4
    (identifiers / 'test' / 'dataset.json').write_text(json.dumps(metadata))
    np.save(identifiers / 'test' / 'all__puzzle_identifiers.npy', np.full(10, 3, np.int32))
    refused(DatasetError, 'go up to 3, and the puzzle table of the model has 1 rows', identifiers)
    # A checkpoint that knows no puzzle answers those of other sets with the blank identifier.
    logged: list[str] = []
    eval_checkpoint.evaluate_checkpoint(_config(identifiers), done[0], log=logged.append)
    assert any('answered with the blank identifier' in text for text in logged)
    shape = {'data': 3, 'fsdp': 1, 'model': 1}
    monkeypatch.setattr(partitioning, 'make_mesh', lambda config: SimpleNamespace(shape=shape))
    refused(ConfigError, 'multiple of the 3 devices that share the rows; got 8. Use 6 or 9')
    assert not (tmp_path / 'run').exists()


def test_a_workdir_that_can_not_be_written_is_refused(data, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(WorkdirError, match='must be a folder that this user can write'):
        train.train(_config(data), tmp_path / 'file' / 'run')


def _files_of_at_most_64_kilobytes():
    """Stands for a full disk: every write beyond fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, 64_000))
    from hrm_jax.run import backend

    backend.enable_compilation_cache = lambda: None


def test_commands_end_with_a_short_error(data, tmp_path):
    file = tiny_run.write_config_file(tmp_path / 'config.py', data, train={'max_steps': 6})
    run = tmp_path / 'run'
    flags = (f'--config={file}', f'--workdir={run}')

    def fails(*arguments, code=1, prelude=None):
        found, text = commands.run(tmp_path / 'out.txt', *arguments, prelude=prelude)
        assert found == code, text
        assert 'Traceback' not in text
        return text[text.index('error: ') :]

    wrong = fails(*flags, '--config.optimiser.lr=1', code=2)
    assert 'unknown config key optimiser. Did you mean optimizer?' in wrong
    assert 'Did you mean: workdir' in fails(f'--config={file}', '--workdri=x', code=2)
    assert 'no configuration file' in fails('--config=nowhere.py', code=2)

    code, text = commands.run(tmp_path / 'out.txt', *flags, '--config.checkpoint.keep_latest=3')
    assert code == 0, text
    assert layout.steps(run) == [3, 6]

    with workdir.lock(run):
        busy = fails(*flags, '--config.train.max_steps=9')
    assert f'in use by another run (process {os.getpid()} on' in busy

    longer = '--config.train.max_steps=12'
    full = fails(*flags, longer, prelude=_files_of_at_most_64_kilobytes)
    assert 'could not take step 9: the disk is full. Checkpoints 3, 6 are intact' in full
    assert layout.steps(run) == [3, 6]

    largest = max((run / layout.FOLDER / '6' / 'params').rglob('*'), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    damaged = fails(*flags, longer, '--checkpoint=6')
    assert 'the checkpoint of step 6 cannot be read' in damaged
    assert '--checkpoint=3' in damaged
    code, text = commands.run(tmp_path / 'out.txt', *flags, longer)
    assert code == 0, text
    assert 'warning: the checkpoint of step 6 cannot be read' in text
    assert 'resumed from step 3' in text
    assert (run / 'set_aside' / '6.0').is_dir()
    assert layout.steps(run)[-1] == 12
    assert [record['step'] for record in _records(run)] == list(range(1, 13))


def test_help_is_quick_to_come_and_needs_no_jax():
    import subprocess

    script = (
        'import sys; sys.argv = ["main", "--help"]\n'
        'from hrm_jax import main\n'
        'try: main.main()\n'
        'finally: assert "jax" not in sys.modules and "flax" not in sys.modules'
    )
    root = pathlib.Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '--config=configs/quickstart.py' in done.stdout
