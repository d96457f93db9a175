"""Text metrics against HRM-Lisp's text_metrics and analyze_predictions."""

import json
import random
from typing import Any

import numpy as np

from experiments.parity import registry
from hrm_jax.scoring import text
from hrm_jax.types import IGNORE_LABEL_ID

_SEEDS = 25


@registry.check('lisp_metrics', files=('functions.json', 'expected.json', 'predictions.npz'))
def lisp_metrics(fixture: registry.Fixture, report: registry.Report) -> None:
    """Each function, then the tool's numbers for padding as 0 and as -100."""
    functions = json.loads((fixture.path / 'functions.json').read_text())
    _functions(functions, report)
    want = json.loads((fixture.path / 'expected.json').read_text())
    vocab = json.loads((fixture.path / 'vocab.json').read_text())
    arrays = registry.read_npz(fixture.path / 'predictions.npz')
    tokens = {i: token for token, i in vocab.items()}
    for name, run in want.get('runs', {}).items():
        labels = arrays['labels']
        if name.endswith('-100'):
            labels = np.where(labels == 0, IGNORE_LABEL_ID, labels)
        rows = {'labels': labels, 'predictions': arrays['pred_ids']}
        first = {k: v[: want['split_between_rank_files']] for k, v in rows.items()}
        _tool(f'{name}, all files', rows, tokens, run['analyze_predictions_runs'], report)
        _tool(f'{name}, one file', first, tokens, [run['max_files_1']], report)


def _functions(functions: dict[str, Any], report: registry.Report) -> None:
    cases = functions['token_accuracy']
    got = [
        text.token_accuracy(c['y_true'], c['y_pred'], c.get('pad_token', text.PAD_TOKEN))
        for c in cases
    ]
    report.close('token_accuracy', got, [c['value'] for c in cases], 1e-12)
    cases = functions['levenshtein']
    got = [text.edit_distance(c['a'], c['b']) for c in cases]
    report.equal('edit distance', got, [c['distance'] for c in cases])
    got = [text.levenshtein_similarity(c['a'], c['b']) for c in cases]
    report.close('levenshtein_similarity', got, [c['similarity'] for c in cases], 1e-12)
    differing = [c for c in functions['parse'] if text.parse(c['tokens']) != c['tree']]
    report.below('parse', len(differing), 0, f'{len(functions["parse"])} cases')
    cases = functions['semantic_equivalent']
    differing = [c for c in cases if _meanings(c) != set(c['results_over_25_seeds'])]
    report.below('semantic equivalence', len(differing), 0, f'{len(cases)} cases')


def _meanings(case: dict[str, Any]) -> set[bool]:
    return {
        text.semantically_equal(case['a'], case['b'], random.Random(seed), original_quirks=True)
        for seed in range(_SEEDS)
    }


def _tool(what, rows, tokens, runs: list[dict[str, Any]], report: registry.Report) -> None:
    got = text.analyze([rows], tokens, original_quirks=True)
    for field in ('examples', 'token_accuracy', 'normalized_levenshtein_similarity',
                  'exact_match_ratio'):  # fmt: skip
        report.close(f'{field}, {what}', getattr(got, field), runs[0][field], 1e-12)
    # The original draws without a seed: its answers differ by a few examples between runs.
    field = 'semantic_equivalence_ratio'
    ours = [getattr(text.analyze([rows], tokens, seed, original_quirks=True), field)
            for seed in range(_SEEDS)]  # fmt: skip
    theirs = [run[field] for run in runs]
    outside = sum(not min(ours) <= value <= max(ours) for value in theirs)
    report.below(f'{field}, {what}', outside, 0, f'{theirs} in {min(ours)}..{max(ours)}')
