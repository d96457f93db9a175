"""Every notebook runs from top to bottom, shortened by its parameters cell."""

import contextlib
import io
import json
import os
import pathlib
import sys
import types

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments' / 'notebooks'
SHORT = {
    'quickstart': {'steps': 12, 'puzzles': 400},
    'inspect_checkpoint': {'steps': 12, 'puzzles': 400},
    'arc_evaluation': {'steps': 4},
    'lisp_evaluation': {'steps': 6, 'expressions': 200},
}


@pytest.fixture
def shown(monkeypatch):
    """What a notebook displays; stands in for IPython."""
    found = []
    module = types.ModuleType('IPython.display')
    module.display = found.append
    module.Image = lambda path: ('image', path)
    module.HTML = lambda text: ('html', text)
    package = types.ModuleType('IPython')
    package.version_info = (9, 0)  # matplotlib asks
    monkeypatch.setitem(sys.modules, 'IPython', package)
    monkeypatch.setitem(sys.modules, 'IPython.display', module)
    return found


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    return tmp_path_factory.mktemp('work')


def run(name, work):
    """Executes the code cells; returns what was printed."""
    cells = json.loads((FOLDER / f'{name}.ipynb').read_text('utf-8'))['cells']
    assert all(not cell.get('outputs') for cell in cells), 'notebooks are kept without outputs'
    # The quickstart and the inspection share a run, as they do for a reader.
    folder = work / ('quickstart' if name in ('quickstart', 'inspect_checkpoint') else name)
    changed = SHORT[name] | {'work': str(folder)}
    scope, out = {'__name__': '__main__'}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for number, cell in enumerate(cells):
            if cell['cell_type'] != 'code':
                continue
            exec(compile(''.join(cell['source']), f'{name}, cell {number}', 'exec'), scope)
            if 'parameters' in cell['metadata'].get('tags', ()):
                assert set(changed) <= set(scope), 'the parameters must exist'
                scope |= changed
    return out.getvalue()


def test_every_notebook_is_listed():
    assert sorted(SHORT) == sorted(path.stem for path in FOLDER.glob('*.ipynb'))


@pytest.mark.parametrize('name', sorted(SHORT, key=lambda name: name == 'inspect_checkpoint'))
def test_notebook_runs(name, work, shown, monkeypatch):
    monkeypatch.chdir(work)
    printed = run(name, work)
    expected = {
        'quickstart': ['confidence', 'valid: '],
        'inspect_checkpoint': ['parameters', 'puzzles/s', 'step  8:'],
        'arc_evaluation': ['arc/hrm_pass@1000', 'place of the truth', 'evaluation_flip'],
        'lisp_evaluation': ['semantic_equivalence_ratio', 'verdict', '-> 144'],
    }[name]
    for text in expected:
        assert text in printed
    kinds = [kind for kind, _ in shown]
    pictures = {'quickstart': ['image', 'html'], 'inspect_checkpoint': ['image'],
                'arc_evaluation': ['html'], 'lisp_evaluation': []}  # fmt: skip
    assert kinds == pictures[name]
    assert all(os.path.getsize(path) for kind, path in shown if kind == 'image')
