"""Batches: rows of the global plan, gathered and augmented in one vectorised call.

Training is an endless iterator whose item is a whole batch and whose state is a small JSON
object. Where grain is installed the iterator is a grain one that works ahead in a thread;
without it the same batches come one by one.
"""

from collections.abc import Iterator
import contextlib
import typing
from typing import Any, Protocol

import numpy as np

from hrm_jax.config.checks import require_choice
from hrm_jax.config.sections import Augmentation
from hrm_jax.data import augment, hints, sampling
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleDataset, PuzzleSet, realise
from hrm_jax.errors import ConfigError
from hrm_jax.types import IGNORE_LABEL_ID, Batch

_PREFETCHED_BATCHES = 2


class BatchIterator(Protocol):
    """Endless batches with a position that can be saved and restored."""

    def __iter__(self) -> 'BatchIterator': ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


# Augmentations that permute the digits of stored boards -> form of augment.random_relabellings.
_DIGIT_FORMS = {'digits': 'correct', 'digits_sic': 'sic'}


def gather(
    puzzles: PuzzleSet,
    metadata: DatasetMetadata,
    examples_B: np.ndarray,
    augmentation: str = 'stored',
    rng: np.random.Generator | None = None,
    rows: np.ndarray | slice = slice(None),
) -> Batch:
    """Builds a batch of the given examples.

    Args:
      puzzles: the set.
      metadata: sizes and ids.
      examples_B: int64 [B], numbers of examples of the set.
      augmentation: 'stored' maps; fresh ones drawn from ``rng`` ('on_the_fly'); or stored maps
        with a fresh translation ('translation', ARC), or with fresh digits and a symmetry for every
        row ('digits' and 'digits_sic', Sudoku).
      rng: generator of this global batch; not used for 'stored'.
      rows: the rows wanted. Numbers are drawn for all of ``examples_B``, so that every process
        draws the same.

    Returns:
      int32 batch of numpy arrays; ignored labels are ``IGNORE_LABEL_ID``.
    """
    owners, within = puzzles.owners(examples_B)
    stored = (puzzles.puzzle_first[owners] + within)[rows]
    transform, side = metadata.transform, metadata.side
    identifiers = puzzles.puzzle_identifiers[owners[rows]]
    maps = None if puzzles.maps is None else puzzles.maps[owners[rows]]
    offsets = None if puzzles.offsets is None else puzzles.offsets[examples_B[rows]]
    if augmentation not in ('stored', *_DIGIT_FORMS):
        assert rng is not None  # see Args
        visit_start = _visit_starts(owners, np.diff(puzzles.puzzle_indices)[owners])
        uniforms = rng.random((len(owners), augment.uniforms_needed(transform, side) + 3))
        shared, own = uniforms[visit_start][rows], uniforms[rows]
        if augmentation == 'on_the_fly':
            maps = augment.random_maps(transform, shared[:, 3:], side)
            if puzzles.maps is not None:
                # The stored ids of augmentations name other maps; the group's own is the first.
                group = np.searchsorted(puzzles.group_indices, owners[rows], side='right') - 1
                identifiers = puzzles.puzzle_identifiers[puzzles.group_indices[group]]
        if transform == 'arc':
            counts = np.diff(puzzles.puzzle_indices)[owners[rows]]
            moved = within[rows] != (shared[:, 2] * counts).astype(np.int64)
            dihedral = np.zeros(len(stored), np.uint8) if maps is None else maps[:, 0]
            assert puzzles.extents is not None  # ``check_augmentation``
            extents = puzzles.extents[stored]
            offsets = augment.random_offsets(own[:, :2], extents, dihedral, side)
            offsets = offsets * moved[:, None]
    inputs, labels = realise(puzzles, metadata, stored, maps, offsets)
    if form := _DIGIT_FORMS.get(augmentation):
        assert rng is not None  # see Args
        uniforms = rng.random((len(owners), side + 1))[rows]
        tables = augment.random_relabellings(uniforms[:, 1:], side, form)
        turns = augment.random_maps('dihedral', uniforms[:, :1], side)
        inputs, labels = (
            augment.relabel_and_turn(cells, tables, turns, side) for cells in (inputs, labels)
        )
    labels = labels.astype(np.int32)
    if metadata.ignore_label_id is not None:
        labels[labels == metadata.ignore_label_id] = IGNORE_LABEL_ID
    return Batch(
        inputs=inputs.astype(np.int32),
        labels=labels,
        puzzle_identifiers=identifiers.astype(np.int32),
    )


def _visit_starts(owners_B: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
    """For each row the first row of its visit; the rows of a visit share a map.

    A visit takes all examples of its puzzle unless the batch ends, so a run of rows of one
    puzzle is as many visits as its length states.
    """
    rows = np.arange(len(owners_B))
    change = np.concatenate([[True], owners_B[1:] != owners_B[:-1]])
    run_start = np.maximum.accumulate(np.where(change, rows, 0))
    return rows - (rows - run_start) % counts_B


class _PlainIterator:
    """The batches of one process, made when they are asked for."""

    def __init__(
        self,
        dataset: PuzzleDataset,
        global_batch_size: int,
        seed: int,
        rows: np.ndarray | slice,
        augmentation: str,
        hint_prob: float,
    ):
        self._metadata = dataset.metadata
        self._sets = [dataset.sets[name] for name in dataset.metadata.sets]
        self._plan = sampling.BatchPlan(self._sets, global_batch_size, seed)
        self._seed, self._rows, self._augmentation = seed, rows, augmentation
        self._hint_prob = hint_prob
        self._set_starts = np.cumsum([0] + [puzzles.num_examples for puzzles in self._sets])
        self._checked_epoch = -1

    def __iter__(self) -> '_PlainIterator':
        return self

    def __next__(self) -> Batch:
        number, epoch = self._plan.position.batches, self._plan.position.epoch
        if epoch != self._checked_epoch:  # size and time of a mapped file: at every batch
            for puzzles in self._sets:
                puzzles.check_files(sample=True)
            self._checked_epoch = epoch
        examples = next(self._plan)
        return self._with_hints(self._gathered(examples, number), number)

    def _with_hints(self, batch: Batch, number: int) -> Batch:
        if not self._hint_prob:
            return batch
        # For all rows, so that every process draws the same.
        shape = self._plan.batch_size, hints.uniforms_needed(batch.inputs.shape[1])
        uniforms = sampling.generator(self._seed, 'hints', number).random(shape)[self._rows]
        inputs = hints.mixed(batch.inputs, batch.labels, self._hint_prob, uniforms)
        return batch.replace(inputs=inputs)

    def _gathered(self, examples: np.ndarray, number: int) -> Batch:
        rng = None
        if self._augmentation != 'stored':
            rng = sampling.generator(self._seed, 'augment', number)
        if len(self._sets) == 1:
            return gather(
                self._sets[0], self._metadata, examples, self._augmentation, rng, self._rows
            )
        owner = np.searchsorted(self._set_starts, examples, side='right') - 1
        parts, places = [], []
        for k, puzzles in enumerate(self._sets):
            (place,) = np.nonzero(owner == k)
            if len(place):
                chosen = examples[place] - self._set_starts[k]
                parts.append(gather(puzzles, self._metadata, chosen, self._augmentation, rng))
                places.append(place)
        order = np.argsort(np.concatenate(places))[self._rows]
        fields = ('inputs', 'labels', 'puzzle_identifiers')
        return Batch(
            **{f: np.concatenate([getattr(part, f) for part in parts])[order] for f in fields}
        )

    def get_state(self) -> dict[str, Any]:
        return self._plan.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._plan.set_state(state)


def train_iterator(
    dataset: PuzzleDataset,
    global_batch_size: int,
    seed: int,
    rows: np.ndarray | slice = slice(None),
    augmentation: str = 'stored',
    prefetch: bool = True,
    visits: int = 1,
    hint_prob: float = 0.0,
) -> BatchIterator:
    """Returns the endless training batches of one process.

    Args:
      dataset: the training split.
      global_batch_size: rows of a batch over all processes.
      seed: seed of the order and of fresh augmentations.
      rows: the rows of a batch that this process loads (``partitioning.process_rows``).
      augmentation: see ``gather``.
      prefetch: make batches ahead in a thread where grain is installed. The batches and the
        states are the same either way.
      visits: how often each batch is given in a row (``act.steps_per_batch``).
      hint_prob: share of the boards with some of their empty cells filled in (hints.py).

    Raises:
      ConfigError: augmentation or hints do not fit the data.
    """
    check_augmentation(dataset, augmentation)
    hints.check(dataset, hint_prob)
    batches = _PlainIterator(dataset, global_batch_size, seed, rows, augmentation, hint_prob)
    if prefetch:
        with contextlib.suppress(ImportError):
            from hrm_jax.data import grain_source

            batches = grain_source.prefetching(batches, _PREFETCHED_BATCHES)
    return batches if visits == 1 else HeldBatches(batches, visits)


def check_augmentation(dataset: PuzzleDataset, augmentation: str) -> None:
    """Raises ConfigError when the data cannot be augmented this way while training."""
    metadata = dataset.metadata
    require_choice('data.augmentation', augmentation, typing.get_args(Augmentation))
    if augmentation == 'stored':
        return
    placed = any(puzzles.extents is not None for puzzles in dataset.sets.values())
    fits = metadata.transform != 'none' and (metadata.transform == 'arc') <= placed
    if augmentation == 'translation':
        fits = metadata.transform == 'arc' and placed
    if augmentation in _DIGIT_FORMS:
        fits = metadata.task == 'sudoku' and metadata.vocab_size == metadata.side + 2
    if not fits:
        raise ConfigError(
            f'data.augmentation={augmentation} needs stored puzzles that can be moved; '
            f'{dataset.path} has task {metadata.task!r} with transform {metadata.transform!r}. Use '
            f'data.augmentation=stored, or build the set with python -m data_builders.'
        )
    if augmentation != 'translation' and metadata.held_out is None:
        raise ConfigError(
            f'data.augmentation={augmentation} may turn training puzzles of {dataset.path} into '
            f'its test answers, and nobody has looked. A build that draws some augmentations does: '
            f'python -m data_builders sudoku --source {dataset.path} --num-aug 10 '
            f'--output-dir DIR. Then use DIR, or data.augmentation=stored.'
        )
    if augmentation != 'translation' and metadata.held_out:
        raise ConfigError(
            f'data.augmentation={augmentation} would turn training puzzles of {dataset.path} into '
            f'its test answers; its builder filtered the stored ones. Use '
            f'data.augmentation=stored.'
        )


def num_eval_batches(
    dataset: PuzzleDataset,
    global_batch_size: int,
    max_examples: int = 0,
    drawn: tuple[int, int] | None = None,
) -> int:
    """Returns how many batches ``eval_batches`` yields."""
    counts = [
        len(eval_examples(dataset.sets[name], max_examples, drawn))
        for name in dataset.metadata.sets
    ]
    return sum(-(-count // global_batch_size) for count in counts)


def eval_examples(
    puzzles: PuzzleSet, max_examples: int = 0, drawn: tuple[int, int] | None = None
) -> np.ndarray:
    """Returns the places of the examples that an evaluation answers, int64, ascending.

    Args:
      puzzles: the set.
      max_examples: only the first ones; 0: all.
      drawn: number of random examples and their seed; None: none are drawn. A set of fewer
        examples is answered as a whole.
    """
    count = puzzles.num_examples
    if drawn is None:
        return np.arange(min(count, max_examples or count))
    wanted, seed = drawn
    order = np.random.default_rng([seed, count]).permutation(count)
    return np.sort(order[:wanted])


def eval_batches(
    dataset: PuzzleDataset,
    global_batch_size: int,
    rows: np.ndarray | None = None,
    max_examples: int = 0,
    drawn: tuple[int, int] | None = None,
) -> Iterator[tuple[str, Batch, int]]:
    """Yields every example in order, set by set.

    Args:
      dataset: the split.
      global_batch_size: rows over all processes.
      rows: int [R] ascending, the rows of a batch that this process loads; None: all.
      max_examples: only the first ones of each set; 0: all.
      drawn: a random subset of each set in their place (``eval_examples``).

    Yields:
      (set name, this process's rows, number of real rows in the global batch). Rows beyond
      the last example hold pad_id, ignored labels and the blank identifier.
    """
    metadata = dataset.metadata
    rows = np.arange(global_batch_size) if rows is None else rows
    for name in metadata.sets:
        puzzles = dataset.sets[name]
        answered = eval_examples(puzzles, max_examples, drawn)
        total = len(answered)
        for start in range(0, total, global_batch_size):
            real = min(global_batch_size, total - start)
            examples = answered[start + rows[rows < real]]
            batch = gather(puzzles, metadata, examples)
            missing = len(rows) - len(examples)
            if missing:
                batch = Batch(
                    inputs=_pad(batch.inputs, missing, metadata.pad_id),
                    labels=_pad(batch.labels, missing, IGNORE_LABEL_ID),
                    puzzle_identifiers=_pad(
                        batch.puzzle_identifiers, missing, metadata.blank_identifier_id
                    ),
                )
            yield name, batch, real


def _pad(values: np.ndarray, rows: int, value: int) -> np.ndarray:
    shape = (rows, *values.shape[1:])
    return np.concatenate([values, np.full(shape, value, values.dtype)])


class HeldBatches:
    """Iterator that gives every batch of another one several times in a row.

    Under ``act.halting=fixed`` all rows take and leave their puzzles together, and a train step in
    between ignores what comes in. Giving the same batch again keeps an epoch an epoch. The position
    is that of the iterator before the batch at hand, and how often that was given.
    """

    def __init__(self, batches: BatchIterator, times: int):
        self._batches = batches
        self._times = times
        self._before: dict[str, Any] = batches.get_state()
        self._batch: Batch | None = None
        self._given = times

    def __iter__(self) -> 'HeldBatches':
        return self

    def __next__(self) -> Batch:
        if self._given == self._times:
            self._before = self._batches.get_state()
            self._batch, self._given = next(self._batches), 0
        assert self._batch is not None  # the first call takes one
        self._given += 1
        return self._batch

    def get_state(self) -> dict[str, Any]:
        done = self._given == self._times
        before = self._batches.get_state() if done else self._before
        return {**before, 'given': 0 if done else self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        state = dict(state)
        given = state.pop('given', 0)
        if given >= self._times:
            raise ValueError(
                f'the saved position is inside a batch that was to be given more than {given} '
                f'times; now it is {self._times}. Keep act.halt_max_steps as it was.'
            )
        self._batches.set_state(state)
        self._before, self._given = state, self._times
        for _ in range(given):
            next(self)
