"""ARC voting against HRM's notebook and TRM's evaluator."""

import json
from pathlib import Path
import re
from typing import Any

import numpy as np

from experiments.parity import registry
from hrm_jax.scoring import arc, arc_names


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def _result(folder: Path, test_puzzles: Any) -> arc.ArcResult:
    maps = arc_names.PuzzleMaps.from_identifiers(_json(folder / 'identifiers.json'))
    scorer = arc.ArcScorer(maps, test_puzzles)
    for path in sorted(folder.glob('rank*.npz')):
        rank = registry.read_npz(path)
        names = ('puzzle_identifiers', 'inputs', 'labels', 'preds', 'q_halt_logits')
        scorer.add(*(rank[name] for name in names))
    return scorer.result()


@registry.check('arc_eval', files=('expected.json', 'identifiers.json'))
def arc_eval(fixture: registry.Fixture, report: registry.Report) -> None:
    """Crops, both rules at every K, every puzzle, the submission."""
    folder = fixture.path
    want = _json(folder / 'expected.json')
    _crops(want.get('crop_cases', ()), report)
    result = _result(folder, None)
    for line in want.get('hrm_notebook_output', ()):
        shot = re.fullmatch(r'(\d+)-shot: ([\d.]+)%', line)
        if shot:
            got = f'{100 * result.hrm[int(shot[1])]:.2f}'
            report.equal(f'HRM {shot[1]}-shot', got, shot[2])
        elif line.startswith('Number of puzzles'):
            report.equal('number of puzzles', len(result.puzzles), int(line.split()[-1]))
    wanted = want.get('hrm_per_puzzle', {})
    wrong = [name for name in wanted if not _same_puzzle(result, name, wanted[name])]
    report.below('HRM per puzzle', len(wrong), 0, '; '.join([f'{len(wanted)} puzzles', *wrong]))

    tests = _json(folder / 'test_puzzles.json')
    if tests is None:
        return
    result = _result(folder, tests)
    for name, value in want.get('trm_result', {}).items():
        k = int(name.rsplit('@', 1)[-1])
        report.close(f'TRM pass@{k}', result.trm[k], value, 1e-12)
    submission = _json(folder / 'trm_submission.json')
    if submission is not None:
        differing = [n for n in submission if submission[n] != result.submission.get(n)]
        differing += sorted(set(result.submission) - set(submission))
        report.below('submission', len(differing), 0, f'{len(submission)} puzzles')


def _same_puzzle(result: arc.ArcResult, name: str, want: dict[str, Any]) -> bool:
    score = result.puzzles.get(name)
    return score is not None and score.tests == want['tests'] and all(
        (score.solved(int(k)) == score.tests) == solved for k, solved in want['solved_at'].items()
    )  # fmt: skip


def _crops(cases: list[dict[str, Any]], report: registry.Report) -> None:
    if not cases:
        return
    tokens = np.array([[int(digit, 16) for digit in case['tokens']] for case in cases])
    extents = arc.crop_extents(tokens)
    report.equal('crop shapes', extents, [case['crop_shape'] for case in cases])
    identity = np.tile(np.array([0, *range(10)], np.uint8), (len(cases), 1))
    got = [''.join(f'{cell - 2:x}' for cell in grid[2:]) for grid in arc.undo(tokens, identity)]
    report.equal('crops', got, [case['crop'] for case in cases])
