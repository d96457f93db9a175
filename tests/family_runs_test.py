"""The check of every kind from the command line, on one of them."""

import importlib

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from experiments import family_runs
from tests import commands, configs_test


def test_a_cut_run_is_the_whole_one_and_a_difference_is_found(tmp_path, monkeypatch):
    def command(flags):
        code, text = commands.run(tmp_path / 'out.txt', *flags)
        if code:
            raise family_runs.RunError(text)
        return text

    monkeypatch.setattr(family_runs, '_command', command)
    kind = next(kind for kind in family_runs.KINDS if kind.config == 'sudoku_trm_singlez')
    assert family_runs.check(kind, tmp_path)['first'] > 0
    log = tmp_path / kind.config / 'whole' / 'metrics.jsonl'
    log.write_text(log.read_text().replace('1', '2', 1))
    monkeypatch.setattr(family_runs, '_command', lambda flags: 'resumed from step 4 ')
    with pytest.raises(family_runs.RunError, match='cut differ'):
        family_runs.check(kind, tmp_path)


def test_every_model_in_configs_is_of_a_kind_that_is_run():
    """What tells the kinds apart is in the configuration of the model and of the halting."""

    def kind(name):
        config = importlib.import_module(f'configs.{name}').get_config()
        model = config.model
        return (model.levels, model.block, model.gradient_window, model.low_states,
                model.closing_update, config.act.halting)  # fmt: skip

    run = {kind(k.config) for k in family_runs.KINDS}
    assert {kind(name) for name in configs_test.NAMES} <= run
