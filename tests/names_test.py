"""Names: what a package exports is never hidden by a file of the same name."""

import ast
import importlib
import pathlib

import hrm_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent


def exported(path: pathlib.Path) -> set[str]:
    """Names that a package's ``__init__`` binds, apart from modules and dunders."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith('__')}


def submodules(folder: pathlib.Path) -> set[str]:
    files = {path.stem for path in folder.glob('*.py')} - {'__init__'}
    return files | {path.parent.name for path in folder.glob('*/__init__.py')}


def clashes(root: pathlib.Path) -> dict[str, set[str]]:
    """Package -> names that are exported and a submodule's as well."""
    found = {
        str(path.parent.relative_to(root)): exported(path) & submodules(path.parent)
        for path in sorted(root.rglob('__init__.py'))
    }
    return {package: names for package, names in found.items() if names}


def test_no_exported_name_is_a_submodules():
    assert clashes(ROOT / 'hrm_jax') == {}
    assert not set(hrm_jax._LAZY) & submodules(ROOT / 'hrm_jax')
    assert {'config', 'train', 'cli'} <= submodules(ROOT / 'hrm_jax')


def test_a_clash_is_found(tmp_path):
    (tmp_path / 'solve').mkdir()
    (tmp_path / '__init__.py').write_text('from x import Solver\ndef solve(): pass\n__all__ = []')
    (tmp_path / 'solve' / '__init__.py').write_text('from .run import run as go')
    (tmp_path / 'solve' / 'run.py').touch()
    assert clashes(tmp_path) == {'.': {'solve'}}
    (tmp_path / 'solve' / '__init__.py').write_text('from .run import run')
    assert clashes(tmp_path)['solve'] == {'run'}


def test_every_exported_name_is_there_and_listed():
    for name, module in hrm_jax._LAZY.items():
        assert getattr(hrm_jax, name) is getattr(importlib.import_module(module), name)
        assert name in dir(hrm_jax)
    assert len(hrm_jax._LAZY) >= 4
