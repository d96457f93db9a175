"""The day a GPU is there: parts that fail or take too long do not take the others with them."""

import shlex

import pytest

from experiments import gpu_day
from experiments.gpu_day import Part


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    (tmp_path / 'good.py').write_text("import os; print('did it', os.environ['WHAT'])")
    (tmp_path / 'bad.py').write_text("raise SystemExit('no such device')")
    (tmp_path / 'slow.py').write_text('import time; time.sleep(60)')
    monkeypatch.setattr(gpu_day, 'ROOT', tmp_path)
    return [Part(name, f'is {name}', [name], {'WHAT': 'well'}) for name in ('bad', 'good', 'slow')]


def test_every_part_runs_and_its_end_is_told(scripts, tmp_path, capfd):
    ends = gpu_day.run([*scripts, scripts[1]], tmp_path, seconds=3.0)
    assert [end.code for end in ends] == [1, 0, None, None]
    assert [bool(end.note) for end in ends] == [False, False, True, True]
    assert (tmp_path / 'bad.log').read_text().strip() == 'no such device'
    assert 'did it well' in capfd.readouterr().out
    page = gpu_day.page(ends)
    assert '| [bad](bad.log) | is bad | 1 |' in page
    assert page.count('the time was up') == 2
    assert '    WHAT=well python -m good' in page


@pytest.mark.parametrize('small', [False, True])
def test_all_parts_are_commands_that_exist(small, tmp_path):
    parts = gpu_day.parts(tmp_path, ['/a/HRM'], 'python', small)
    names = [part.name for part in parts]
    assert names == [
        'core', 'kernels', 'benchmark', 'attention', 'gated_unit', 'profile_auto', 'profile_pallas',
    ]  # fmt: skip
    from experiments.benchmark import __main__ as benchmark

    for part in parts:
        module, *arguments = shlex.split(part.command.partition('-m ')[2])
        assert (gpu_day.ROOT / f'{module.replace(".", "/")}').exists() or (
            gpu_day.ROOT / f'{module.replace(".", "/")}.py'
        ).exists()
        if module == 'experiments.benchmark':
            assert benchmark.find_cases(benchmark.parse(arguments), on_cpu=small)
