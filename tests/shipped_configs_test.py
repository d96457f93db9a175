"""--config finds files and shipped names, and lets them import each other from anywhere."""

import pathlib
import sys

from absl import flags
from ml_collections.config_flags import config_flags
import pytest

from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How ml_collections loads a file.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


def _no_run(argument: str):
    raise AssertionError(f'{argument} was read as what a run recorded')


@pytest.fixture
def load():
    """Parses the value of --config; nothing of it may stay in sys.modules or sys.meta_path."""

    def ours():
        return {n: m for n, m in sys.modules.items() if n.split('.')[0] == 'configs'}

    parser = shipped.FileOrName(config_flags.ConfigFileFlagParser('config'), _no_run)
    modules, finders = ours(), list(sys.meta_path)
    yield parser.parse
    assert sys.meta_path == finders
    left = {n: m for n, m in ours().items() if modules.get(n) is not m}
    for name in left:
        del sys.modules[name]
    places = {
        name: str(getattr(module, '__path__', module.__file__)) for name, module in left.items()
    }
    assert not [name for name, place in places.items() if str(ROOT) in place]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory outside the checkout, which cannot be imported from either."""
    monkeypatch.chdir(tmp_path)
    path = [p for p in sys.path if pathlib.Path(p or '.').resolve() not in (ROOT, tmp_path)]
    monkeypatch.setattr(sys, 'path', path)
    for name in [n for n in sys.modules if n.split('.')[0] == 'configs']:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def write(folder, **files):
    (folder / 'configs').mkdir()
    for name, text in files.items():
        (folder / 'configs' / f'{name}.py').write_text(text)


def test_every_shipped_name_loads_from_anywhere(elsewhere, load):
    assert shipped.names() == sorted(p.stem for p in (ROOT / 'configs').glob('[a-z]*.py'))
    for name in shipped.names():
        for value in (name, f'{name}.py', str(ROOT / 'configs' / f'{name}.py')):
            assert ExperimentConfig.from_dict(load(value)).name == name


def test_a_file_comes_before_a_shipped_name(elsewhere, load):
    (elsewhere / 'quickstart.py').write_text('def get_config(kind="file"):\n  return {"k": kind}')
    assert load('quickstart.py') == {'k': 'file'}
    assert load('quickstart.py:mine') == {'k': 'mine'}
    assert load('quickstart').name == 'quickstart'  # no file has exactly this name


def test_a_file_of_ones_own_derives_from_a_shipped_one(elsewhere, load):
    mine = 'from configs import sudoku_trm_mlp as base\ndef get_config(): return base.get_config()'
    (elsewhere / 'mine.py').write_text(mine)
    assert load('mine.py').name == 'sudoku_trm_mlp'
    write(
        elsewhere,
        base='def get_config(): return {"k": "own base"}',
        mine='from configs import base, sudoku_trm_mlp\nget_config = base.get_config',
    )
    assert load('configs/mine.py') == {'k': 'own base'}


def test_a_package_of_ones_own_called_configs_stays_what_it_is(elsewhere, load, monkeypatch):
    write(elsewhere, __init__='MARK = 7', sudoku_trm_mlp='raise RuntimeError("not for hrm_jax")',
          mine='from configs import MARK, sudoku_trm_att\ndef get_config(): return {"k": MARK}',
          )  # fmt: skip
    # syspath_prepend would leave the path of `elsewhere` to the tests that follow.
    monkeypatch.setattr(sys, 'path', [str(elsewhere), *sys.path])
    assert load('sudoku_trm_singlez').name == 'sudoku_trm_singlez'  # derives from sudoku_trm_mlp
    assert load('configs/mine.py') == {'k': 7}
    import configs

    assert (configs.MARK, configs.__file__) == (7, str(elsewhere / 'configs' / '__init__.py'))
    assert load('sudoku_trm_singlez').name == 'sudoku_trm_singlez'
    assert sys.modules['configs'] is configs


def test_the_error_lists_the_shipped_names(elsewhere, load):
    with pytest.raises(
        ConfigError, match=r"file 'nowhere', and no .*: arc1, arc1_small, .*sudoku_"
    ):
        load('nowhere')
    with pytest.raises(ConfigError, match=r'Did you mean --config=quickstart\?'):
        load('configs/quickstart.py')
    with pytest.raises(ConfigError, match='Shipped: arc1'):
        load('')


def test_a_failing_file_leaves_no_trace(elsewhere, load):
    (elsewhere / 'bad.py').write_text('from configs import sudoku_trm_mlp\n1 / 0')
    with pytest.raises(ZeroDivisionError):
        load('bad.py')


def test_the_flag_takes_names_and_overrides(elsewhere, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x', '--config', 'quickstart', '--config.optimizer.lr=0.25'])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', None, 'c', values)
    values['config'].parser = shipped.FileOrName(values['config'].parser, _no_run)
    values(sys.argv)
    assert (values.config.name, values.config.optimizer.lr) == ('quickstart', 0.25)
