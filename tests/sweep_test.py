"""Sweeps: which runs there are, that each is done once, resumed, and shared by processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from hrm_jax import locks
from hrm_jax.cli import sweep as command
from hrm_jax.errors import UsageError, WorkdirError
from hrm_jax.run import sweep
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Stands for the command that trains: records its arguments, and ends with the code in exit.txt.
TRAINER = """
import os, pathlib, signal, sys, time
place = pathlib.Path(next(a for a in sys.argv if a.startswith('--workdir=')).partition('=')[2])
with (place / 'calls.txt').open('a') as file: file.write(' '.join(sys.argv[1:]) + '\\n')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
wait = place.parent / 'seconds.txt'
time.sleep(float(wait.read_text()) if wait.exists() else 0)
code = place / 'exit.txt'
sys.exit(int(code.read_text()) if code.exists() else 0)
"""


@pytest.fixture
def trainer(tmp_path):
    file = tmp_path / 'trainer.py'
    file.write_text(TRAINER)
    return sys.executable, str(file)


def of(settings, seeds, config='quickstart', flags=()):
    runs = sweep.runs_of(sweep.read_settings(settings), range(seeds))
    return sweep.Sweep(config, tuple(flags), runs)


def calls(folder):
    return {path.parent.name: path.read_text().splitlines() for path in folder.glob('*/calls.txt')}


def test_every_combination_and_seed_is_a_run():
    made = of(['optimizer.lr=1e-4,3e-4', 'eval.depth_multiples=2;2,4'], 2)
    assert len(made.runs) == 8
    assert made.runs[0].name == 'optimizer.lr=1e-4,eval.depth_multiples=2,seed=0'
    assert made.runs[-1].flags == [
        '--config.optimizer.lr=3e-4', '--config.eval.depth_multiples=2,4', '--config.seed=1',
    ]  # fmt: skip
    assert [run.name for run in of([], 2).runs] == ['seed=0', 'seed=1']


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['optimizer.lr'], 'KEY=VALUE'), (['optimizer.lr='], 'KEY=VALUE'),
        (['optimizer.lr=1,1'], 'repeats'), (['a=1', '--config.a=2'], 'repeats'),
        (['seed=1,2'], '--seeds'), (['data.path=a/b,a_b'], 'folder of its own'),
    ],
)  # fmt: skip
def test_settings_that_make_no_sweep(texts, message):
    with pytest.raises(UsageError, match=message):
        of(texts, 1)


def test_runs_are_done_once_and_failed_ones_again(tmp_path, trainer):
    folder, logged = tmp_path / 's', []
    made = of(['optimizer.lr=1,2'], 2, flags=['--config.train.epochs=4'])
    bad = folder / made.runs[1].name
    bad.mkdir(parents=True)
    (bad / 'exit.txt').write_text('1')
    assert sweep.execute(made, folder, logged.append, trainer) == 1
    assert {name: len(lines) for name, lines in calls(folder).items()} == dict.fromkeys(
        (run.name for run in made.runs), 1
    )
    assert calls(folder)[bad.name] == [
        f'--config=quickstart --workdir={bad} --config.optimizer.lr=1 --config.seed=1 '
        f'--config.train.epochs=4 --cpu-devices=1'
    ]
    assert any(line == f'not done: {bad.name}. The same command tries again.' for line in logged)
    (bad / 'exit.txt').unlink()
    assert sweep.execute(made, folder, logged.append, trainer) == 0
    assert [len(lines) for name, lines in calls(folder).items() if name == bad.name] == [2]
    assert sum(map(len, calls(folder).values())) == 5
    assert json.loads((bad / 'sweep.json').read_text()) == {
        'settings': {'optimizer.lr': '1'}, 'seed': 1, 'exit_code': 0,
    }  # fmt: skip
    # A sweep may grow, but not become another one.
    assert (
        sweep.execute(of(['optimizer.lr=1,2,3'], 2, flags=made.flags), folder, print, trainer) == 0
    )
    assert sum(map(len, calls(folder).values())) == 7
    with pytest.raises(WorkdirError, match='has a sweep with flags'):
        sweep.execute(of(['optimizer.lr=1'], 1), folder, print, trainer)


@pytest.mark.parametrize('code', [2, 143])
def test_a_wrong_command_line_or_a_signal_ends_the_sweep(tmp_path, trainer, code):
    made, folder = of([], 3), tmp_path / 's'
    (folder / 'seed=0').mkdir(parents=True)
    (folder / 'seed=0' / 'exit.txt').write_text(str(code))
    assert sweep.execute(made, folder, print, trainer) == code
    assert list(calls(folder)) == ['seed=0']


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path, trainer):
    """The other one ends without having done it: then it is done here."""
    made, folder, logged = of([], 2), tmp_path / 's', []
    (folder / 'seed=0').mkdir(parents=True)
    held = locks.exclusive(folder / 'seed=0' / '.sweep.lock', 'file')
    held.__enter__()

    def log(text):
        logged.append(text)
        if 'seed=1: starts' in text:
            assert 'seed=0' not in calls(folder)
            held.__exit__(None, None, None)

    assert sweep.execute(made, folder, log, trainer) == 0
    assert sorted(calls(folder)) == ['seed=0', 'seed=1']
    assert sum('in progress' in line for line in logged) == 1


def start(folder, trainer, seeds):
    script = textwrap.dedent(f"""
        import pathlib, sys
        from hrm_jax.run import sweep
        made = sweep.Sweep('quickstart', (), sweep.runs_of({{}}, range({seeds})))
        sys.exit(sweep.execute(made, pathlib.Path({str(folder)!r}), print, {trainer!r}))
    """)
    return subprocess.Popen([sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.DEVNULL)


def test_processes_share_a_sweep_and_a_signal_reaches_the_run(tmp_path, trainer):
    folder = tmp_path / 's'
    folder.mkdir()
    (folder / 'seconds.txt').write_text('0.3')
    both = [start(folder, trainer, 4) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert [len(lines) for lines in calls(folder).values()] == [1] * 4
    (folder / 'seconds.txt').write_text('60')
    one = start(folder, trainer, 6)
    end = time.monotonic() + 60
    while 'seed=4' not in calls(folder) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)  # until the trainer has its handler
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait(30) == 143
    assert 'seed=5' not in calls(folder)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--set', 'optimizer.lrr=1'], 'Did you mean'), (['--seeds', '0'], 'at least 1'),
        (['--mode=eval'], 'cannot be given'), (['--config.train.epochs', '5'], 'is not a flag'),
        (['--config.train.epoch=5'], 'Did you mean'),
    ],
)  # fmt: skip
def test_a_wrong_command_trains_nothing(tmp_path, capsys, arguments, message):
    base = ['--config=quickstart', f'--workdir={tmp_path / "s"}']
    assert commands.exit_code(command.main, *base, *arguments) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / 's').exists()
