"""The lock, setup.py, what it installs, and the repository's text agree with each other."""

import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def setup_arguments(monkeypatch) -> dict:
    """Runs setup.py with a stand-in for setuptools and returns what it declares."""
    seen = {}
    stand_in = types.ModuleType('setuptools')
    stand_in.find_packages = lambda include: include
    monkeypatch.setitem(sys.modules, 'setuptools', stand_in)
    stand_in.setup = lambda **kwargs: seen.update(kwargs)
    runpy.run_path(str(ROOT / 'setup.py'))
    return seen


def locked(python_version: str) -> dict[str, str]:
    """Returns package -> version of requirements.txt for one Python."""
    found = {}
    for line in (ROOT / 'requirements.txt').read_text().splitlines():
        if not line or line.startswith('#'):
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate(
            {'python_version': python_version}
        ):
            continue
        name = canonicalize_name(requirement.name)
        assert name not in found, f'{name} is locked twice for Python {python_version}'
        (pin,) = requirement.specifier
        assert pin.operator == '=='
        found[name] = pin.version
    return found


@pytest.mark.parametrize('python_version', ['3.11', '3.12'])
def test_the_lock_fits_the_ranges(monkeypatch, python_version):
    lock = locked(python_version)
    for text in setup_arguments(monkeypatch)['install_requires']:
        requirement = Requirement(text)
        version = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f'{text}, locked: {version}'
    assert lock['jax'].startswith('0.10.' if python_version == '3.11' else '0.11.')
    assert lock['jax'] == lock['jaxlib']


def test_the_extras(monkeypatch):
    arguments = setup_arguments(monkeypatch)
    assert set(arguments['extras_require']) == {
        'gpu',
        'tpu',
        'torch',
        'notebooks',
        'reasoning_gym',
        'tokamax',
        'tensorboard',
        'dev',
    }


def test_every_folder_with_code_is_a_package():
    for package in ('hrm_jax', 'data_builders'):
        folders = {path.parent for path in (ROOT / package).rglob('*.py')}
        assert {f for f in folders if not (f / '__init__.py').is_file()} == set()


# Parses the command line as the commands do, and prints what came of it.
LOAD = """
import json, sys
import hrm_jax
from hrm_jax.cli import common
common.define_config_flag()
common.parse(sys.argv, '')
config = common.read_config()
left = [name for name in sys.modules if name.split('.')[0] == 'configs']
print(json.dumps([hrm_jax.__file__, config.name, config.model.levels, config.optimizer.lr, left]))
"""


def python(*arguments, **keywords):
    """Runs this Python without what the environment would add to its path."""
    environment = {name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}
    environment |= keywords.pop('env', {})
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, **keywords,
    )  # fmt: skip


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy, since building writes into the folder."""
    folder = tmp_path_factory.mktemp('built')
    (folder / 'source').mkdir()
    for name in ('hrm_jax', 'data_builders', 'configs', 'experiments'):
        skip = shutil.ignore_patterns('__pycache__', 'results', 'aot')
        shutil.copytree(ROOT / name, folder / 'source' / name, ignore=skip)
    files = ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'CHANGELOG.md')
    for name in (*files, 'CITATION.cff', 'Makefile', 'requirements.txt', 'tests/packaging_test.py'):
        (folder / 'source' / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / 'source' / name)
    (folder / 'source' / 'tests' / '__init__.py').touch()
    build = (
        'from setuptools import build_meta; import sys; folder = sys.argv[1];'
        'build_meta.build_sdist(folder); build_meta.build_wheel(folder)'
    )
    done = python('-c', build, folder, cwd=folder / 'source')
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob('*.whl'), folder.glob('*.tar.gz')
    return {'wheel': wheel, 'sdist': sdist}


@pytest.fixture(scope='module', params=['wheel', 'sdist'])
def installed(request, built, tmp_path_factory):
    """A folder with hrm_jax installed into it, without its dependencies."""
    folder = tmp_path_factory.mktemp('installed')
    done = python(
        '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--no-build-isolation',
        '--no-compile', '--disable-pip-version-check', '--target', folder, built[request.param],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_configs_once_and_nothing_of_tests_or_experiments(built):
    names = zipfile.ZipFile(built['wheel']).namelist()
    configs = {name for name in names if re.search('configs/', name)}
    assert configs == {f'hrm_jax/_configs/{p.name}' for p in (ROOT / 'configs').glob('*.py')}
    assert {name.split('/')[0] for name in names} - {'hrm_jax', 'data_builders'} == {
        next(name.split('/')[0] for name in names if name.endswith('METADATA'))
    }
    code = ('.py', '.js', '.css')
    files = [p for package in ('hrm_jax', 'data_builders') for p in (ROOT / package).rglob('*')]
    wanted = {str(path.relative_to(ROOT)) for path in files if path.suffix in code}
    assert {name for name in names if name.endswith(code)} - configs == wanted


@pytest.mark.parametrize('name', ['sudoku_trm_singlez', 'sudoku_trm_singlez.py'])
def test_an_installed_hrm_jax_loads_shipped_names_from_any_folder(installed, tmp_path, name):
    done = python(
        '-c', LOAD, f'--config={name}', '--config.optimizer.lr=0.5',
        cwd=tmp_path, env={'PYTHONPATH': str(installed)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, *loaded = json.loads(done.stdout)
    assert pathlib.Path(file).parent.parent == installed
    assert loaded == ['sudoku_trm_singlez', 'single', 0.5, []]


def test_an_installed_hrm_jax_lists_the_names_it_ships(installed, tmp_path):
    done = python('-c', LOAD, '--config=nowhere', cwd=tmp_path, env={'PYTHONPATH': str(installed)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no configuration file 'nowhere'")
    assert ', quickstart, ' in done.stderr


def test_the_console_script_is_the_package_s_main(installed):
    (metadata,) = installed.glob('hrm_jax-*.dist-info')
    assert 'hrm-jax = hrm_jax.__main__:main' in (metadata / 'entry_points.txt').read_text()


def test_a_checkout_loads_its_files_and_names_from_any_folder(tmp_path):
    for name in (ROOT / 'configs' / 'sudoku_trm_singlez.py', 'sudoku_trm_singlez'):
        done = python(
            '-c', LOAD, f'--config={name}', cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[1:3] == ['sudoku_trm_singlez', 'single']
    done = python('-c', LOAD, '--config=configs/sudoku_trm_singlez.py', cwd=ROOT)
    assert json.loads(done.stdout)[1:3] == ['sudoku_trm_singlez', 'single']


def test_citation_and_changelog_name_the_version(monkeypatch):
    version = setup_arguments(monkeypatch)['version']
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert str(citation['version']) == version
    papers = {reference['url'].rsplit('/', 1)[1] for reference in citation['references']}
    assert papers == {'2506.21734', '2510.04871'}
    versions = re.findall(r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert versions[0] == 'Unreleased'
    assert version in versions


def test_the_lock_names_no_hosts():
    for path in ROOT.glob('requirements*.txt'):
        text = path.read_text()
        assert not re.search(r'://|--(extra-)?index|--find-links|@', text)


def test_files_named_in_the_readme_exist():
    text = (ROOT / 'README.md').read_text()
    shipped = {path.stem for path in (ROOT / 'configs').glob('*.py')}
    for config in re.findall(r'--config=([\w/.]+)', text):
        assert config in {*shipped, 'NAME', 'FILE'} or (ROOT / config).is_file(), config
    table = re.findall(r'^\| `(\w+)` \|', text, re.MULTILINE)
    assert table
    assert set(table) <= shipped
    for target in re.findall(r'^    make (\w+)', text, re.MULTILINE):
        assert f'\n{target}:' in (ROOT / 'Makefile').read_text()
