"""``python -m hrm_jax.score arc|text PREDICTIONS...``: scores saved predictions.

PREDICTIONS are folders or files written with ``eval.save_outputs``, or an original's
``step_N_all_preds.R``. Several are merged: processes, and for ARC checkpoints, whose votes
add up. Prints JSON.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from hrm_jax.data import records
from hrm_jax.interop import torch_reader
from hrm_jax.interop.atomic import replacing
from hrm_jax.interop.errors import CheckpointFormatError
from hrm_jax.scoring import arc, arc_names, collect, examples, predictions, text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m hrm_jax.score', description=__doc__)
    tasks = parser.add_subparsers(dest='task', required=True)
    for name, title in (('arc', 'voting and pass@K'), ('text', 'texts of tokens')):
        task = tasks.add_parser(name, help=title)
        task.add_argument('predictions', nargs='+', help='folders or files')
        task.add_argument('--data', help='data set they were made on (default: as recorded)')
        task.add_argument('--split', default='test', help='its split (default: %(default)s)')
        task.add_argument('--step', type=int, help="of an original's folder (default: the last)")
    arc_task, text_task = tasks.choices['arc'], tasks.choices['text']
    arc_task.add_argument('--identifiers', help="identifiers.json of an original's data set")
    arc_task.add_argument('--test-puzzles', help='test_puzzles.json: every puzzle that counts')
    arc_task.add_argument('--submission', help='writes submission.json for the competition')
    arc_task.add_argument('--per-puzzle', help='writes the place of the truth for every test')
    text_task.add_argument('--vocab', help='vocab.json (default: of the data set)')
    text_task.add_argument('--pad-token', default=text.PAD_TOKEN)
    text_task.add_argument('--max-files', type=int, default=0, help='only the first; 0: all')
    text_task.add_argument('--seed', type=int, default=0, help='of the check of equal meaning')
    text_task.add_argument('--trials', type=int, default=100, help='of the same')
    text_task.add_argument(
        '--original-quirks', action='store_true', help="numbers of HRM-Lisp's analyze_predictions"
    )
    return parser


def _write_json(path: str | None, value: object) -> None:
    if path:
        with replacing(path) as beside:
            pathlib.Path(beside).write_text(json.dumps(value), encoding='utf-8')


def _score_arc(flags, files, dataset) -> dict:
    maps = arc_names.find(dataset, flags.identifiers)
    if maps is None:
        raise arc.ScoringError('give --data or --identifiers, so that augmentations are known.')
    tests = flags.test_puzzles and json.loads(pathlib.Path(flags.test_puzzles).read_text())
    result = collect.score_arc(files, maps, dataset, tests or None)
    _write_json(flags.submission, result.submission)
    _write_json(flags.per_puzzle, {k: dataclasses.asdict(v) for k, v in result.puzzles.items()})
    if result.missing:
        print(f'without predictions: {", ".join(result.missing)}', file=sys.stderr)
    return {'rows': result.rows} | result.metrics()


def _score_text(flags, files, dataset) -> dict:
    vocab = flags.vocab or (dataset and pathlib.Path(dataset.path) / 'vocab.json')
    if not vocab:
        raise predictions.PredictionError('give --vocab or --data, so that tokens have names.')
    ids = json.loads(pathlib.Path(vocab).read_text(encoding='utf-8'))
    tokens = {0: flags.pad_token} | {i: token for token, i in ids.items()}
    read = (
        chunk
        for file in files[: flags.max_files or None]
        for chunk in examples.chunks(file, 'labels', 'predictions', dataset=dataset)
    )
    scores = text.analyze(
        read, tokens, flags.seed, flags.trials, flags.pad_token, flags.original_quirks
    )
    return dataclasses.asdict(scores)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 when the predictions can not be scored."""
    flags = _parser().parse_args(argv)
    try:
        files = predictions.find(
            flags.predictions,
            torch_reader.read_torch,
            flags.step,
            all_steps=getattr(flags, 'original_quirks', False),
        )
        folders = [p for p in flags.predictions if pathlib.Path(p).is_dir()]
        recorded = predictions.folder_metadata(folders[0]).get('data', '') if folders else ''
        score = {'arc': _score_arc, 'text': _score_text}[flags.task]
        data = flags.data or recorded
        dataset = records.load(data, flags.split) if data else None
        print(json.dumps(score(flags, files, dataset), indent=2))
    except (ValueError, OSError, CheckpointFormatError) as error:
        print(f'Error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
