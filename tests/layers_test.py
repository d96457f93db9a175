"""The house stays easy to see: imports go down the layers, and the core stays light.

tests/layers.py is the only place where the layers are written as code. The rules here are plain
functions over a folder, so that the tests can also show on a made-up tree that each of them finds
what it must.
"""

import ast
import fnmatch
import graphlib
import pathlib
from xml.etree import ElementTree

import pytest

from tests import draw_layers
from tests.layers import (
    BUILDS_DATA,
    CORE,
    FOR_BUILDERS,
    FREE,
    HEAVY,
    HEAVY_ALLOWED,
    JAX,
    LAYERS,
    NAME_THE_MODULE,
    PLACES,
    WITHOUT_JAX,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ('hrm_jax', 'data_builders', 'configs', 'experiments', 'tests')


def modules_of(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns ``package/sub/module`` -> file for every module of the project under root."""
    return {
        str(path.relative_to(root).with_suffix('')).removesuffix('/__init__'): path
        for package in PACKAGES
        for path in sorted((root / package).rglob('*.py'))
    }


def imports_of(path: pathlib.Path, name: str, modules, *, top_level: bool) -> set[str]:
    """Returns what a file imports: ``a/b/c`` within the project, else the outer package.

    With ``top_level`` only what is imported when the module itself is.
    """
    package = name if path.name == '__init__.py' else name.rpartition('/')[0]

    def is_later(node):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        return is_function or (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test))

    def walk(node):
        if top_level and is_later(node):
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    found = set()
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [(alias.name.replace('.', '/'), None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or '').replace('.', '/')
            if node.level:
                parts = package.split('/')
                above = '/'.join(parts[: len(parts) - node.level + 1])
                base = f'{above}/{base}'.strip('/')
            candidates = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, member in candidates:
            if base.split('/')[0] not in PACKAGES:
                found.add(base.split('/')[0])
            elif member and f'{base}/{member}' in modules:
                found.add(f'{base}/{member}')
            else:
                found.add(base)
    return found


def _match(name: str, patterns) -> bool:
    return any(fnmatch.fnmatch(name, p) or name == p.removesuffix('/*') for p in patterns)


def _place(name: str) -> tuple[int, int] | None:
    """Returns (layer, position within it) of a module of hrm_jax; None if it has none."""
    for layer, row in enumerate(LAYERS):
        for position, pattern in enumerate(row):
            if _match(name, (pattern,)):
                return layer, position
    return None


def layer_faults(root: pathlib.Path) -> list[str]:
    """Returns one line for every import that does not go down, and every homeless module."""
    modules = modules_of(root)
    folders = {str(path.parent.relative_to(root)) for path in modules.values()}
    faults = []
    for name, path in modules.items():
        imported = {
            i for i in imports_of(path, name, modules, top_level=False)
            if i.split('/')[0] in PACKAGES and i != name
        }  # fmt: skip
        package, _, inner = name.partition('/')
        if path.name == '__init__.py' and package in ('hrm_jax', 'data_builders'):
            inside = {i for i in imported if not i.startswith(f'{name}/')}
            faults += [f'{name}/__init__ imports {i}, outside its folder' for i in sorted(inside)]
            continue
        for other in sorted(imported):
            target, _, target_inner = other.partition('/')
            if target in ('experiments', 'tests') and package != target and package != 'tests':
                faults.append(f'{name} imports {other}, which nobody may')
            elif package == 'data_builders' and target == 'hrm_jax':
                if not _match(target_inner, FOR_BUILDERS):
                    faults.append(f'{name} imports {other}; builders know the disk format only')
            elif package == 'configs' and other != 'hrm_jax/config' and target != 'configs':
                faults.append(f'{name} imports {other}; configs know hrm_jax.config only')
            elif package == 'hrm_jax':
                faults += _fault_within(inner, name, other, target, target_inner, folders)
        if package == 'hrm_jax' and not _match(inner, FREE) and _place(inner) is None:
            faults.append(f'{name} stands in no layer; give it a place in LAYERS')
    return faults


def _fault_within(inner, name, other, target, target_inner, folders) -> list[str]:
    if (inner, target) == BUILDS_DATA:
        return []
    if target != 'hrm_jax':
        return [f'{name} imports {other}; hrm_jax imports no other room']
    if other == 'hrm_jax' or (other in folders and _place(target_inner) is None):
        return []  # the package itself: its version
    if _match(target_inner, FREE):
        return []
    if _match(inner, FREE):
        return [f'{name} imports {other}; it stands alone']
    mine, theirs = _place(inner), _place(target_inner)
    if mine is None or theirs is None:
        return []  # reported as homeless
    if theirs > mine:  # equal places are files of one folder
        return [f'{name} (layer {mine[0]}) imports {other} (layer {theirs[0]}); imports go down']
    return []


def cycle_faults(root: pathlib.Path) -> list[str]:
    """Returns one line with a cycle of files that import each other, if there is one."""
    modules = modules_of(root)
    graph = {
        name: imports_of(path, name, modules, top_level=False) & (modules.keys() - {name})
        for name, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [f'these import each other: {" <- ".join(error.args[1])}']
    return []


def reachable(root: pathlib.Path, start: str) -> dict[str, str]:
    """Returns outer packages -> the project module that brings them in, when start is imported."""
    modules = modules_of(root)
    seen, todo, outer = set(), [start], {}
    while todo:
        name = todo.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        parents = name.split('/')
        todo += ['/'.join(parts) for parts in (parents[:n] for n in range(1, len(parents)))]
        for other in imports_of(modules[name], name, modules, top_level=True):
            if other.split('/')[0] in PACKAGES:
                todo.append(other)
            else:
                outer.setdefault(other, name)
    return outer


def heavy_faults(root: pathlib.Path) -> list[str]:
    """Returns one line for every optional package that comes in with the import of a module."""
    faults = []
    modules = modules_of(root)
    for name, path in modules.items():
        if name.split('/')[0] not in ('hrm_jax', 'data_builders'):
            continue
        allowed = {p for pattern in HEAVY_ALLOWED if _match(name, (pattern,))
                   for p in HEAVY_ALLOWED[pattern]}  # fmt: skip
        direct = imports_of(path, name, modules, top_level=True) & HEAVY
        faults += [
            f'{name} imports {p} at its top; import it where it is used'
            for p in sorted(direct - allowed)
        ]
        if _match(name, CORE):
            outer = reachable(root, name)
            faults += [
                f'{name} gets {p} through {outer[p]}' for p in sorted(HEAVY & set(outer) - direct)
            ]
    return faults


def place_faults(root: pathlib.Path) -> list[str]:
    """Returns one line for every import of a package outside of its places."""
    modules = modules_of(root)
    faults = []
    for name, path in modules.items():
        room, _, inner = name.partition('/')
        if room == 'hrm_jax':
            found = imports_of(path, name, modules, top_level=False) & PLACES.keys()
            faults += [
                f'{name} imports {package}; its place is {", ".join(PLACES[package]) or "nowhere"}'
                for package in sorted(found)
                if inner not in PLACES[package]
            ]
    return faults


def module_faults(root: pathlib.Path) -> list[str]:
    """Returns one line for every file that could apply the Flax module past model/hrm.py."""
    faults = []
    for name, path in modules_of(root).items():
        room, _, inner = name.partition('/')
        if room != 'hrm_jax' or _match(inner, ('model/*', *NAME_THE_MODULE)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            imported = isinstance(node, ast.ImportFrom) and 'HRM' in {a.name for a in node.names}
            if imported or (isinstance(node, ast.Attribute) and node.attr == 'HRM'):
                faults.append(f'{name} names HRM; call the functions of model/hrm.py')
                break
    return faults


def jax_faults(root: pathlib.Path) -> list[str]:
    """Returns one line for every module that must run without jax and brings it in."""
    faults = []
    for name in modules_of(root):
        if _match(name, WITHOUT_JAX):
            outer = reachable(root, name)
            faults += [f'{name} gets {p} through {outer[p]}' for p in sorted(JAX & set(outer))]
    return faults


RULES = [layer_faults, cycle_faults, heavy_faults, place_faults, module_faults, jax_faults]


@pytest.mark.parametrize('rule', RULES)
def test_the_repository_keeps_the_rule(rule):
    assert not rule(ROOT)


def test_the_tables_name_what_exists():
    modules = modules_of(ROOT)
    inside = [*(name for row in LAYERS for name in row), *FREE, *FOR_BUILDERS, *NAME_THE_MODULE,
              BUILDS_DATA[0], *(name for names in PLACES.values() for name in names)]  # fmt: skip
    named = [*(f'hrm_jax/{name}' for name in inside), *HEAVY_ALLOWED, *CORE, *WITHOUT_JAX]
    assert [n for n in named if not any(_match(module, (n,)) for module in modules)] == []


def test_the_picture_shows_the_table():
    picture = ROOT / 'docs' / 'layers.svg'
    drawn = draw_layers.svg()
    assert picture.read_text() == drawn, f'the layers have changed: {draw_layers.COMMAND}'
    shown = [node.text for node in ElementTree.fromstring(drawn).iter() if node.text]
    assert [name for row in (*LAYERS, FREE) for name in row if name not in shown] == []


def test_the_repository_is_seen():
    assert {'hrm_jax', 'hrm_jax/types', 'hrm_jax/config', 'tests/layers_test'} <= set(
        modules_of(ROOT)
    )


FAULTS = [
    (layer_faults, 'hrm_jax/losses.py', 'from hrm_jax import train', 'imports hrm_jax/train'),
    (layer_faults, 'hrm_jax/act.py', 'from hrm_jax.losses import x', 'imports hrm_jax/losses'),
    (layer_faults, 'hrm_jax/data/sampling.py', 'from .. import evaluate', 'imports go down'),
    (layer_faults, 'hrm_jax/train_step.py', 'def f():\n  import hrm_jax.main', 'hrm_jax/main'),
    (layer_faults, 'hrm_jax/model/deep/x.py', 'import hrm_jax.run.plan', 'imports go down'),
    (layer_faults, 'hrm_jax/config/__init__.py', 'import hrm_jax.errors', 'outside its folder'),
    (layer_faults, 'hrm_jax/novelty.py', '', 'stands in no layer'),
    (layer_faults, 'hrm_jax/novelty/x.py', '', 'stands in no layer'),
    (layer_faults, 'hrm_jax/train.py', 'import experiments.parity', 'which nobody may'),
    (layer_faults, 'hrm_jax/train.py', 'import data_builders.sudoku', 'no other room'),
    (layer_faults, 'hrm_jax/main.py', 'import data_builders.custom', 'no other room'),
    (layer_faults, 'hrm_jax/lisp/reader.py', 'import hrm_jax.types', 'stands alone'),
    (layer_faults, 'hrm_jax/data/__init__.py', 'import hrm_jax.types', 'outside its folder'),
    (layer_faults, 'data_builders/maze.py', 'import hrm_jax.train', 'disk format only'),
    (layer_faults, 'data_builders/maze.py', 'import hrm_jax.data.sampling', 'disk format only'),
    (layer_faults, 'configs/maze.py', 'import hrm_jax.types', 'configs know'),
    (cycle_faults, 'hrm_jax/run/start.py', 'def f():\n  import hrm_jax.run.plan', 'run/plan'),
    (cycle_faults, 'hrm_jax/run/start.py', 'from hrm_jax.run import plan', 'run/start'),
    (heavy_faults, 'hrm_jax/run/writers.py', 'import clu.metrics', 'clu at its top'),
    (heavy_faults, 'hrm_jax/train.py', 'try:\n  import wandb\nexcept E: pass', 'wandb at its'),
    (heavy_faults, 'hrm_jax/train_step.py', 'import hrm_jax.metrics', 'gets clu through'),
    (place_faults, 'hrm_jax/train.py', 'def f():\n  from clu import metrics', 'run/summary'),
    (place_faults, 'hrm_jax/metrics.py', 'import tensorflow', 'its place is nowhere'),
    (module_faults, 'hrm_jax/eval_step.py', 'hrm.HRM(config).apply', 'names HRM'),
    (module_faults, 'hrm_jax/cli/x.py', 'from hrm_jax.model.hrm import HRM', 'names HRM'),
    (jax_faults, 'hrm_jax/data/records.py', 'import jax.numpy', 'gets jax through'),
    (jax_faults, 'data_builders/maze.py', 'import hrm_jax.model.layers', 'gets flax through'),
    (jax_faults, 'hrm_jax/cli/solve.py', 'from hrm_jax.model import layers', 'gets flax through'),
    (jax_faults, 'configs/maze.py', 'import hrm_jax.model.layers', 'gets flax through'),
]


@pytest.mark.parametrize(('rule', 'file', 'text', 'fault'), FAULTS)
def test_each_rule_finds_a_fault(tmp_path, rule, file, text, fault):
    contents = {
        **dict.fromkeys(('train', 'losses', 'evaluate', 'main', 'types', 'data/records'), ''),
        'data/__init__': 'def f():\n  import matplotlib',
        'model/layers': 'import flax\nHRM = 1',
        'metrics': 'import clu',
        'run/plan': 'import hrm_jax.run.start',
        'run/start': 'if TYPE_CHECKING:\n  import hrm_jax.model.layers',
        'cli/common': 'if TYPE_CHECKING:\n  import hrm_jax.model.layers',
        'cli/solve': 'def f():\n  import hrm_jax.model.layers',
    }
    for name, content in contents.items():
        path = tmp_path / 'hrm_jax' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert not rule(tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    faults = rule(tmp_path)
    assert len(faults) == 1
    assert fault in faults[0]


def test_every_rule_is_seen_to_find_a_fault():
    assert {rule for rule, *_ in FAULTS} == set(RULES)
