"""The lock, setup.py and the repository's text agree with each other."""

import pathlib
import re
import runpy
import sys
import types

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

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


def test_only_the_two_packages_are_installed(monkeypatch):
    arguments = setup_arguments(monkeypatch)
    assert {pattern.removesuffix('.*') for pattern in arguments['packages']} == {
        'hrm_jax', 'data_builders',
    }  # fmt: skip
    assert set(arguments['extras_require']) == {'gpu', 'tpu', 'torch', 'notebooks', 'dev'}


def test_every_folder_with_code_is_a_package():
    for package in ('hrm_jax', 'data_builders'):
        folders = {path.parent for path in (ROOT / package).rglob('*.py')}
        assert {f for f in folders if not (f / '__init__.py').is_file()} == set()


def test_the_lock_names_no_hosts():
    for name in ('requirements.txt', 'requirements-dev.txt'):
        text = (ROOT / name).read_text()
        assert not re.search(r'://|--(extra-)?index|--find-links|@', text)


def test_files_named_in_the_readme_exist():
    text = (ROOT / 'README.md').read_text()
    for config in re.findall(r'--config=(\S+)', text):
        assert (ROOT / config).is_file(), config
    table = re.findall(r'^\| `(\w+)` \|', text, re.MULTILINE)
    assert table
    assert set(table) <= {path.stem for path in (ROOT / 'configs').glob('*.py')}
    for target in re.findall(r'^    make (\w+)', text, re.MULTILINE):
        assert f'\n{target}:' in (ROOT / 'Makefile').read_text()
