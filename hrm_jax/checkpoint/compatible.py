"""Whether a run may resume under other settings, and weights may be used for other data."""

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import typing
from typing import Any

import numpy as np

from hrm_jax.checkpoint.data_facts import identifier_digests, of_task, vocabulary_digest
from hrm_jax.config import ExperimentConfig
from hrm_jax.config.checks import require_choice
from hrm_jax.config.model import ModelConfig
from hrm_jax.config.sections import PuzzleTableChoice
from hrm_jax.data import records
from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.errors import CheckpointError, ConfigError

# What may differ between a checkpoint and the run that continues it. Everything else changes
# what is computed and would make the resumed run neither the old nor a new experiment.
CHANGEABLE_ON_RESUME = (
    'name', 'logging.', 'checkpoint.', 'eval.', 'data.path', 'data.source', 'data.source_flags',
    'data.task',
    'train.log_every_steps', 'train.max_steps', 'train.early_stopping.', 'train.puzzle_table',
    'train.micro_batches', 'train.change_batch_size', 'train.steps_per_dispatch',
    'train.gradient_sums', 'mesh.',
)  # fmt: skip


def _flat(values: Any, prefix: str = '') -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f'{prefix}.{name}' if prefix else str(name))
    return flat


def differences(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    allowed: tuple[str, ...] = (),
    places: tuple[str, str] = ('in the checkpoint', 'now'),
) -> list[str]:
    """Lists the keys of two nested mappings that differ, as 'key: A in the checkpoint, B now'.

    Args:
      saved, current: nested mappings of JSON values.
      allowed: keys, or prefixes ending in a dot, that may differ.
      places: where each mapping is from.
    """
    old, new = _flat(saved), _flat(current)
    missing = object()
    return [
        f'{key}: {old.get(key, "(absent)")!r} {places[0]}, {new.get(key, "(absent)")!r} {places[1]}'
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
        and not any(key == a or (a.endswith('.') and key.startswith(a)) for a in allowed)
    ]


def check_same_experiment(
    meta: Mapping[str, Any], config: ExperimentConfig, dataset: Mapping[str, Any], path: Path
) -> None:
    """Checks that a checkpoint can be continued with this configuration and data.

    Raises:
      CheckpointError: keys differ that must not; each is shown with both values.
    """
    try:  # fills in keys that did not exist when the checkpoint was written
        saved = ExperimentConfig.from_dict(meta['config']).to_dict()
    except ConfigError:
        saved = meta['config']
    allowed = CHANGEABLE_ON_RESUME
    if config.train.change_batch_size:
        allowed = (*allowed, 'train.global_batch_size')
    found = differences(saved, config.to_dict(), allowed)
    # Keys that came later than the checkpoint are not compared.
    now = {key: value for key, value in dataset.items() if key in meta['dataset']}
    found += [
        f'data set {text}' for text in differences(meta['dataset'], json.loads(json.dumps(now)))
    ]
    if found:
        raise CheckpointError(
            f'{path} was made with other settings:\n  ' + '\n  '.join(found) + '\n'
            f'Use the old values to resume, or another --workdir for a new run. These may change: '
            f'{", ".join(name + "*" * name.endswith(".") for name in CHANGEABLE_ON_RESUME)}.'
        )


def check_same_content(
    meta: Mapping[str, Any], digest: str, path: Path, accept: bool, log: Callable[[str], None]
) -> None:
    """Checks that a run resumes on the puzzles that it was trained on.

    Args:
      meta: metadata of the checkpoint.
      digest: of the training set now (``data_facts``).
      path: folder of the checkpoint, for messages.
      accept: ``--accept-data-change``: resumes all the same, and logs it.
      log: prints a message.

    Raises:
      CheckpointError: it is another data set of the same sizes.
    """
    saved = (meta.get('data_facts') or {}).get('digest')
    if not saved:
        log(f'note: {path} has no digest of its training set; only the sizes were compared.')
    elif saved != digest:
        text = f'the training set is not the one of {path} (digest {digest}, there {saved})'
        if not accept:
            raise CheckpointError(
                f'{text}, so puzzles that it is tested on may be ones that it has learned. Build '
                f'it again as it was (builder, seed and options are in its manifest.json), or '
                f'resume with the new one: --accept-data-change'
            )
        log(f'warning: {text}; resuming with it, as --accept-data-change asks for.')


# Does not change what the weights mean.
_FREE_OF_THE_MODEL = ('attention', 'remat', 'unroll_cycles', 'forward_dtype', 'initializer')
# Likewise, for weights of boards of every size.
_SIZES = ('vocab_size', 'seq_len', 'box_height', 'box_width')


def check_same_model(
    meta: Mapping[str, Any], config: ExperimentConfig, path: Path, free: tuple[str, ...] = ()
) -> None:
    """Checks that a checkpoint's weights fit the configured model.

    Args:
      meta: metadata of the checkpoint.
      config: configuration with the sizes of the data set filled in.
      path: folder of the checkpoint, for the message.
      free: further keys of the model that may differ.

    Raises:
      CheckpointError: the architecture differs; each key is shown with both values.
    """
    try:
        saved = ExperimentConfig.from_dict(meta['config']).to_dict()['model']
    except ConfigError:
        saved = meta['config'].get('model', {})
    free += _FREE_OF_THE_MODEL + (_SIZES if config.model.any_size else ())
    found = differences(saved, config.to_dict()['model'], free)
    if found:
        raise CheckpointError(
            f'{path} is the checkpoint of another model:\n  '
            + '\n  '.join(f'model.{text}' for text in found)
            + '\nUse the configuration and the data that it was trained with.'
        )


def resize_table(
    table: Any, rows: int, choice: str = 'error', same_puzzles: bool = True, kept: int = 0
) -> np.ndarray:
    """Returns a table with ``rows`` rows, float32 [rows, E].

    Args:
      table: float32 [old rows, E].
      rows: rows wanted, the ``embedding_rows`` of the model with the new data.
      same_puzzles: whether row k stands for the same puzzle in both, as far as both have it.
      choice: what to do when the sizes differ, or the puzzles.
        ``error``: refuse.
        ``mean``: forget every puzzle; each row is the mean of the old rows (what the TRM
        repository does when it loads a table of another size).
        ``zeros``: forget every puzzle; each row is zero, as before training.
        ``overlap``: keep the rows that both tables have (ids must mean the same puzzles);
        further rows are zero.
      kept: rows at the beginning that mean the same whatever the puzzles are (the factors of
        composed embeddings); they stay with every choice.

    Raises:
      CheckpointError: the sizes differ and the choice is ``error``.
      ConfigError: the choice is unknown.
    """
    require_choice('puzzle_table', choice, typing.get_args(PuzzleTableChoice))
    old = len(table)
    if old == rows and same_puzzles:
        return table
    if choice == 'error':
        raise CheckpointError(
            f'puzzle_emb.weights has {old} rows, but the data has {rows} puzzle identifiers. Say '
            f'what to do: mean (every row the mean of the old ones), zeros, or overlap (keep the '
            f'rows both have, zeros for the rest).'
        )
    if choice == 'mean':
        # In float64: the sum of a million float32 rows loses digits.
        mean = np.mean(table[kept:], axis=0, dtype=np.float64).astype(np.float32)
        new = np.broadcast_to(mean, (rows, table.shape[1])).copy()
        new[:kept] = table[:kept]
        return new
    new = np.zeros((rows, table.shape[1]), np.float32)
    new[:kept] = table[:kept]
    if choice == 'overlap':
        new[: min(old, rows)] = table[: min(old, rows)]
    return new


def is_other_size(model: ModelConfig, meta: Mapping[str, Any], dataset: PuzzleDataset) -> bool:
    """Whether a data set has boards of another size, which the weights answer all the same.

    Args:
      model: of the checkpoint.
      meta: its metadata.
      dataset: the split that is to be answered.
    """
    data = dataset.metadata
    if not model.any_size or (model.vocab_size, model.seq_len) == (data.vocab_size, data.seq_len):
        return False
    was = (meta.get('dataset') or {}).get('task') or data.task
    return was == data.task and data.task_of().first_symbol == model.first_symbol


BLANK_ADVICE = (
    'Use the data set that it was trained on, or answer every puzzle with the blank identifier: '
    '--config.eval.identifiers=blank (hrm-jax eval), --identifiers=blank (hrm-jax solve, view)'
)


def check_data(
    model: ModelConfig,
    meta: Mapping[str, Any],
    dataset: PuzzleDataset,
    path: Any,
    *,
    blank: bool = False,
    split: str = 'test',
    log: Callable[[str], None] = print,
) -> bool:
    """Checks that weights may answer the puzzles of a data set.

    Weights answer any puzzle of the same alphabet and length, and those that serve every size
    (``ModelConfig.any_size``) also boards of the same task in another size. Where the puzzle table
    has more than the blank row, an identifier must also stand for the same puzzle and augmentation
    as in training: with another numbering every puzzle would get the embedding of another one.

    Args:
      model: of the checkpoint.
      meta: its metadata.
      dataset: the split that is to be answered.
      path: folder of the checkpoint, for messages.
      blank: answer with the blank identifier, so that identifiers need not agree.
      split: its name.
      log: prints a message.

    Returns:
      Whether the identifiers of the data set may be used; False: the blank one must be.

    Raises:
      CheckpointError: vocabulary, length or identifiers are others; what to do instead.
    """
    data, where = dataset.metadata, dataset.path or 'the data set'
    if is_other_size(model, meta, dataset):
        log(
            f'{where} has boards of {data.seq_len} cells and {data.vocab_size} tokens; the weights '
            f'were trained on {model.seq_len} and {model.vocab_size}, and serve every size'
        )
        return True
    sizes = {n: (getattr(model, n), getattr(data, n)) for n in ('vocab_size', 'seq_len')}
    wrong = [f'{n} is {now}, not {was}' for n, (was, now) in sizes.items() if was not in (0, now)]
    facts = meta.get('data_facts') or {}
    was = facts.get('vocabulary') or of_task(
        (meta.get('dataset') or {}).get('task') or '', data.vocab_size
    )
    if not wrong and _differ(was, vocabulary_digest(dataset)):
        wrong = ['its tokens stand for other symbols than those of the training set']
    if wrong:
        raise CheckpointError(
            f'{path} cannot answer the puzzles of {where}: {"; ".join(wrong)}. Weights answer '
            f'puzzles of the alphabet and length that they were trained on.'
        )
    if not model.has_puzzle_table or data.num_puzzle_identifiers <= 1:
        return True  # no identifiers, or the blank one alone
    rows = model.num_puzzle_identifiers
    if rows <= 1 or blank:
        log(f'every puzzle of {where} is answered with the blank identifier')
        return False
    _check_identifiers(rows, facts.get('identifiers') or {}, dataset, split, path, log)
    return True


def _differ(was: str | None, now: str) -> bool:
    """Whether two digests are known, of one kind, and not the same."""
    kinds = [(text or '').rpartition(':')[0] for text in (was, now)]
    return bool(was and now) and kinds[0] == kinds[1] and was != now


def _check_identifiers(rows, saved, dataset, split, path, log) -> None:
    count = dataset.metadata.num_puzzle_identifiers
    if count != rows:
        raise CheckpointError(
            f'{path} has a puzzle table of {rows} rows, and {dataset.path} has {count} puzzle '
            f'identifiers, so they do not stand for the same puzzles. {BLANK_ADVICE}.'
        )
    now = identifier_digests({split: dataset})
    if not saved or not now:
        log(
            f'note: {path if not saved else dataset.path} does not record what its puzzle '
            f'identifiers stand for; only their number, {rows}, was compared.'
        )
        return
    if now[split] in saved.values() or now['all'] == saved['all']:
        return
    others = {split: dataset}
    for name in ('train', 'test'):
        if name != split and (Path(dataset.path) / name / records.METADATA).is_file():
            others[name] = records.load(dataset.path, name)
    if len(others) == 1 or identifier_digests(others)['all'] != saved['all']:
        raise CheckpointError(
            f'the puzzle identifiers of {dataset.path} stand for other puzzles or augmentations '
            f'than those that {path} was trained on, so every puzzle would get the embedding of '
            f'another one. {BLANK_ADVICE}.'
        )


def check_table(meta: Mapping[str, Any], facts: Mapping[str, Any], choice: str, path: Any) -> bool:
    """Checks that a new run may begin with the puzzle table of another one.

    Args:
      meta: metadata of the checkpoint that it begins with.
      facts: ``data_facts`` of the new run.
      choice: ``train.puzzle_table``.
      path: folder of the checkpoint, for messages.

    Returns:
      Whether the rows stand for the same puzzles, as far as it is known.

    Raises:
      CheckpointError: they do not, and the choice is ``error``.
    """
    was = ((meta.get('data_facts') or {}).get('identifiers') or {}).get('all')
    now = (facts.get('identifiers') or {}).get('all')
    if not was or not now or was == now:
        return True
    if choice == 'error':
        raise CheckpointError(
            f'the rows of the puzzle table of {path} stand for other puzzles than those of this '
            f'data set. State what becomes of them with --config.train.puzzle_table: mean (every '
            f'row the mean of the old ones), zeros, or overlap (keep the rows as they are).'
        )
    return False


def check_predictions(
    facts: Mapping[str, Any], dataset: PuzzleDataset, folder: Any, split: str
) -> None:
    """Checks that predictions are about the puzzles of a data set, before they are scored on it.

    Args:
      facts: what the predictions record (``identifiers``, ``vocabulary``); older ones nothing.
      dataset: the split to score on.
      folder: of the predictions, for messages.
      split: name of the split.

    Raises:
      CheckpointError: they were made for puzzles of other identifiers or tokens.
    """
    for name, now in (
        ('vocabulary', vocabulary_digest(dataset)),
        ('identifiers', identifier_digests({split: dataset}).get(split, '')),
    ):
        was = facts.get(name)
        if _differ(was, now):
            what = 'tokens' if name == 'vocabulary' else 'puzzle identifiers'
            raise CheckpointError(
                f'the predictions in {folder} were made on {facts.get("data", "other data")}, '
                f'whose {what} are not those of {dataset.path}. Score them on that data set.'
            )
