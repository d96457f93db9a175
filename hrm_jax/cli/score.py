"""Scores saved predictions.

``hrm-jax score arc PREDICTIONS...`` votes and counts pass@K; ``hrm-jax score text PREDICTIONS...``
compares texts of tokens (Lisp); ``hrm-jax score rules PREDICTIONS...`` judges boards by the rules
of their task (any shortest path, valid path, valid board), by difficulty; ``hrm-jax score
confidence PREDICTIONS...`` compares q_halt with what was right. PREDICTIONS are folders or files
written with ``eval.save_outputs``, or an original's ``step_N_all_preds.R``. Several are merged:
processes, and for ARC checkpoints, whose votes add up. The data set decides what counts: puzzles
without a prediction are named and count as wrong. Prints JSON.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import sys

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.errors import PredictionError

_NAMED = 20  # of what is missing
_TASKS = {
    'arc': 'voting and pass@K',
    'text': 'texts of tokens',
    'rules': 'exact and by the rules of the task, with standard errors and by difficulty',
    'confidence': 'calibration of q_halt: Brier score, reliability, accuracy at coverage',
}


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax score``."""
    parser = common.parser('score', __doc__)
    tasks = parser.add_subparsers(dest='task', required=True)
    for name, title in _TASKS.items():
        task = tasks.add_parser(name, help=title, formatter_class=common.HelpFormatter)
        task.add_argument('predictions', type=common.path, nargs='+', help='folders or files')
        task.add_argument(
            '--data', type=common.path, help='data set they were made on (default: as recorded)'
        )
        task.add_argument('--split', help='its split (default: as recorded, or test)')
        task.add_argument('--step', type=int, help="of an original's folder (default: the last)")
    arc_task, text_task = tasks.choices['arc'], tasks.choices['text']
    tasks.choices['confidence'].add_argument(
        '--bins', type=int, default=10, help='bins of confidence between 0 and 1'
    )
    tasks.choices['confidence'].add_argument(
        '--plot', type=common.path, help='draws reliability and coverage (.png, .svg or .pdf)'
    )
    arc_task.add_argument(
        '--identifiers', type=common.path, help="identifiers.json of an original's data set"
    )
    arc_task.add_argument(
        '--test-puzzles', type=common.path, help='test_puzzles.json: every puzzle that counts'
    )
    arc_task.add_argument(
        '--submission', type=common.path, help='writes submission.json for the competition'
    )
    arc_task.add_argument(
        '--per-puzzle', type=common.path, help='writes the rank of the truth for every test'
    )
    text_task.add_argument(
        '--vocab', type=common.path, help='vocab.json (default: of the data set)'
    )
    text_task.add_argument('--pad-token', default='<pad>', help='token that fills up a text')
    text_task.add_argument('--max-files', type=int, default=0, help='only the first; 0: all')
    text_task.add_argument('--seed', type=int, default=0, help='seed of the check of equal meaning')
    text_task.add_argument('--trials', type=int, default=100, help='trials of the same check')
    text_task.add_argument(
        '--original-quirks', action='store_true', help="numbers of HRM-Lisp's analyze_predictions"
    )
    return parser


def _write_json(path: str | None, value: object) -> None:
    if path:
        files.write_text(path, json.dumps(value))


def _score_arc(flags, found, dataset) -> dict:
    from hrm_jax.scoring import arc_names, collect

    maps = arc_names.find(dataset, flags.identifiers)
    if maps is None:
        raise PredictionError('give --data or --identifiers, so that augmentations are known.')
    tests = flags.test_puzzles and files.read_json(flags.test_puzzles, PredictionError, dict)
    result = collect.score_arc(found, maps, dataset, tests or None)
    if dataset is None and not tests:
        print(
            'note: only puzzles with predictions are counted, as nothing states which were asked '
            'for; give --data or --test-puzzles.', file=sys.stderr,
        )  # fmt: skip
    _write_json(flags.submission, result.submission)
    _write_json(flags.per_puzzle, {k: dataclasses.asdict(v) for k, v in result.puzzles.items()})
    _name_missing(result.missing, len(result.missing))
    return {'rows': result.rows} | result.metrics()


def _name_missing(names: Sequence[str], count: int) -> None:
    """Prints what was asked for and not answered."""
    if not count:
        return
    more = f' and {count - _NAMED:,} more' if count > _NAMED and names else ''
    listed = f': {", ".join(names[:_NAMED])}{more}' if names else ''
    print(f'without predictions, counted as wrong: {count:,}{listed}', file=sys.stderr)


def _score_text(flags, found, dataset) -> dict:
    from hrm_jax.data.names import read_vocabulary
    from hrm_jax.scoring import examples, text

    vocab = flags.vocab or (dataset and pathlib.Path(dataset.path) / 'vocab.json')
    if not vocab:
        raise PredictionError('give --vocab or --data, so that tokens have names.')
    ids = read_vocabulary(vocab)
    tokens = {0: flags.pad_token} | {i: token for token, i in ids.items()}
    used = found[: flags.max_files or None]
    asked = dataset if used == found and not flags.original_quirks else None
    if asked is None and not flags.original_quirks:
        why = 'give --data to count all that were asked for' if dataset is None else '--max-files'
        print(f'note: only examples with predictions are counted ({why}).', file=sys.stderr)
    seen = examples.Seen(asked)
    scores = text.analyze(
        seen.chunks(used, 'labels', 'predictions', dataset=dataset), tokens, flags.seed,
        flags.trials, flags.pad_token, flags.original_quirks, lambda: seen.missing_count,
    )  # fmt: skip
    _name_missing(seen.missing_names(_NAMED), scores.missing)
    return dataclasses.asdict(scores)


def _score_rules(flags, found, dataset) -> dict:
    from hrm_jax.scoring import rules

    if dataset is None:
        raise PredictionError('give --data, so that questions, answers and the task are known.')
    scores = rules.score(found, dataset, only_answered=flags.is_part)
    _name_missing((), scores.missing)
    if table := scores.table():
        print(table, file=sys.stderr)
    return scores.to_json()


def _score_confidence(flags, found, dataset) -> dict:
    from hrm_jax.scoring import confidence

    measured = confidence.measure_files(found, dataset, flags.bins)
    if flags.plot:
        from hrm_jax.visualize import reliability

        reliability.save_reliability(flags.plot, measured)
        print(f'plot: {flags.plot}', file=sys.stderr)
    return measured.to_json()


def score(flags: argparse.Namespace) -> None:
    """Scores what the flags name and prints the result."""
    from hrm_jax.checkpoint import compatible
    from hrm_jax.data import records
    from hrm_jax.interop import torch_reader
    from hrm_jax.scoring import predictions

    found = predictions.find(
        flags.predictions,
        torch_reader.read_torch,
        flags.step,
        all_steps=getattr(flags, 'original_quirks', False),
    )
    folders = [p for p in flags.predictions if pathlib.Path(p).is_dir()]
    recorded = predictions.folder_metadata(folders[0]) if folders else {}
    data = flags.data or recorded.get('data', '')
    split = flags.split or recorded.get('split', 'test')
    dataset = records.load(data, split) if data else None
    flags.is_part = any(key in recorded for key in ('max_examples', 'subset'))
    for key, limit in (('max_examples', '{:,} examples'), ('subset', '{}')):
        if key in recorded:
            by_rules = flags.task in ('rules', 'confidence')
            print(
                f'note: the evaluation was limited to {limit.format(recorded[key])} of each set '
                f'(eval.{key}); all others {"do not count" if by_rules else "count as wrong"}.',
                file=sys.stderr,
            )  # fmt: skip
    if dataset is not None:
        for folder in folders:
            facts = predictions.folder_metadata(folder)
            compatible.check_predictions(facts, dataset, folder, split)
    score_task = {
        'arc': _score_arc, 'text': _score_text, 'rules': _score_rules,
        'confidence': _score_confidence,
    }[flags.task]  # fmt: skip
    print(json.dumps(score_task(flags, found, dataset), indent=2))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.run(lambda: score(flags))
