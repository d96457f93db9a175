"""Keeps what an evaluation answers (``eval.save_outputs``), and scores it from there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from hrm_jax import files as files_lib
from hrm_jax import partitioning
from hrm_jax.checkpoint.places import absolute
from hrm_jax.config import EvalConfig, ExperimentConfig
from hrm_jax.data.puzzles import PuzzleDataset, stored_examples
from hrm_jax.errors import PredictionError, PuzzleError
from hrm_jax.eval_step import EvalResult
from hrm_jax.run import distributed
from hrm_jax.scoring import arc, arc_names, examples, predictions, rules
from hrm_jax.types import IGNORE_LABEL_ID, Batch

SUBMISSION = 'submission.json'


class Collector:
    """Writes the outputs that ``eval.save_outputs`` names, one folder per evaluation.

    Args:
      folder: see predictions.py.
      config: names the outputs.
      dataset: gives the types of the arrays.
      facts: JSON-able facts about the evaluation.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        config: EvalConfig,
        dataset: PuzzleDataset,
        facts: Mapping[str, Any],
    ):
        self.folder = pathlib.Path(folder)
        self.wanted = config.save_outputs
        self._is_part = bool(config.max_examples or config.subset)
        self._dataset, metadata = dataset, dataset.metadata
        self._facts = dict(facts) | {'task': metadata.task, 'vocab_size': metadata.vocab_size}
        if config.max_examples:
            self._facts['max_examples'] = config.max_examples
        if config.subset:
            self._facts['subset'] = config.subset
        self._types = {
            'predictions': predictions.smallest_dtype(metadata.vocab_size - 1),
            'inputs': predictions.smallest_dtype(metadata.vocab_size - 1),
            'labels': predictions.smallest_dtype(metadata.vocab_size - 1, IGNORE_LABEL_ID),
            'logits': np.dtype(np.float32),
        }
        self._writers: dict[str, predictions.Writer] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> 'Collector':
        self._open.__enter__()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._open.__exit__(*error)

    @classmethod
    def for_evaluation(
        cls,
        config: ExperimentConfig,
        dataset: PuzzleDataset,
        folder: pathlib.Path,
        checkpoint: pathlib.Path,
        log: Callable[[str], None],
        data: Mapping[str, Any] | None = None,
    ) -> 'Collector | None':
        """A collector where outputs are wanted and the folder can be written, else None.

        Args:
          config: the experiment.
          dataset: the split.
          folder: see the class.
          checkpoint: what is evaluated.
          log: prints a message.
          data: more facts about the data, which the prediction files record.
        """
        if not config.eval.save_outputs:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log(f'predictions are not kept, as {folder} cannot be made: {error.strerror}')
            return None
        facts = {
            'data': str(pathlib.Path(config.data.path).expanduser().absolute()),
            'split': config.eval.split,
            'checkpoint': str(absolute(checkpoint)),
            'halting': config.eval.halting,
            **(data or {}),
        }
        return cls(folder, config.eval, dataset, facts)

    def add_batch(
        self, set_name: str, example: np.ndarray, batch: Batch, result: EvalResult, steps: int
    ) -> None:
        """Writes a batch on the first process, without the rows that only pad it.

        Args:
          set_name: set of the split.
          example: int [real], places in the set of the rows that are puzzles.
          batch, result: on the mesh.
          steps: ACT steps of every row.
        """
        names = ('predictions', 'q_halt', 'q_continue', 'logits')
        answers = {n: getattr(result, n) for n in names if getattr(result, n) is not None}
        answers, batch = partitioning.to_host((answers, batch))
        if not distributed.is_first():
            return
        answers['steps'] = np.full(len(batch.inputs), steps)
        answers, batch = jax.tree.map(lambda x: x[: len(example)], (answers, batch))
        self.add(set_name, example, batch, answers)

    def scores(self, log: Callable[[str], None]) -> dict[str, float]:
        """Scores what was kept, once all is written: ARC by votes, other tasks by their rules.

        Args:
          log: prints a message.

        Returns:
          ``eval/<set>/<metric>`` -> value; {} where too little was kept, or nothing has an answer.
        """
        is_arc = self._dataset.metadata.task == 'arc'
        needed = {'predictions', 'q'} if is_arc else {'predictions'}
        if not (needed <= set(self.wanted) and distributed.is_first()):
            return {}
        try:
            if is_arc:
                return score_arc_folder(self.folder, self._dataset, self._is_part)
            if not self._dataset.has_answers:
                return {}
            return rules.score_folder(self.folder, self._dataset, self._is_part, log)
        except (PredictionError, PuzzleError) as error:
            log(f'no {"ARC score" if is_arc else "score by rules"}: {error}')
            return {}

    def add(
        self, set_name: str, example: np.ndarray, batch: Batch, answers: Mapping[str, np.ndarray]
    ) -> None:
        """Writes rows.

        Args:
          set_name: set of the split.
          example: int [n], places in the set.
          batch: the puzzles, n rows.
          answers: ``predictions``, ``q_halt``, ``q_continue``, ``steps`` and, where wanted,
            ``logits``; n rows each.
        """
        if set_name not in self._writers:
            writer = predictions.Writer(self.folder, set_name, self._facts)
            self._writers[set_name] = self._open.enter_context(writer)
        rows = {
            'example': np.asarray(example, np.int64),
            'puzzle_identifiers': np.asarray(batch.puzzle_identifiers, np.int32),
            'steps': np.asarray(answers['steps'], np.int32),
        }
        if 'q' in self.wanted:
            rows |= {n: np.asarray(answers[n], np.float32) for n in ('q_halt', 'q_continue')}
        found = {'inputs': batch.inputs, 'labels': batch.labels} | dict(answers)
        for name in self._types:
            if name in self.wanted:
                rows[name] = np.asarray(found[name]).astype(self._types[name])
        self._writers[set_name].add(**rows)


def score_arc(
    files: Iterable[predictions.PredictionFile],
    maps: arc_names.PuzzleMaps,
    dataset: PuzzleDataset | None = None,
    test_puzzles: Mapping[str, Any] | None = None,
    sets: Sequence[str] | None = None,
    only_answered: bool = False,
) -> arc.ArcResult:
    """Scores prediction files of ARC puzzles.

    What counts is what was asked for: the puzzles of ``test_puzzles``, or else of the data set.
    Those without predictions are not solved. Where neither is given, or with ``only_answered``,
    only puzzles with predictions count.

    Args:
      files: merged, whatever process or checkpoint they are of.
      maps: what the puzzle identifiers stand for.
      dataset: the split that was asked for; inputs and labels, if the files have none.
      test_puzzles: see ``arc.ArcScorer``.
      sets: of the data set; None: all.
      only_answered: the evaluation was limited on purpose.

    Raises:
      PredictionError: the files do not fit, or lack something.
    """
    truth = None
    if dataset is not None and not test_puzzles and not only_answered:
        truth = truth_of(dataset, maps, sets or dataset.metadata.sets)
    scorer = arc.ArcScorer(maps, test_puzzles, truth)
    wanted = ['puzzle_identifiers', 'inputs', 'predictions', 'q_halt']
    wanted += [] if test_puzzles or truth is not None else ['labels']
    for file in files:
        for chunk in examples.chunks(file, *wanted, dataset=dataset):
            rows: dict[str, Any] = {'labels': None} | {name: chunk[name] for name in wanted}
            scorer.add(**rows)
    return scorer.result()


def truth_of(
    dataset: PuzzleDataset, maps: arc_names.PuzzleMaps, sets: Sequence[str]
) -> dict[str, list[tuple[bytes, bytes | None]]]:
    """Returns the tests of every puzzle of a split, from its puzzles without augmentation.

    Args:
      dataset: the split.
      maps: what its puzzle identifiers stand for.
      sets: those that were asked for.

    Returns:
      Name -> (question, answer) of each test; the answer is None where the set has none.
    """
    truth: dict[str, list[tuple[bytes, bytes | None]]] = {}
    for one in (dataset.sets[name] for name in sets):
        ids = one.puzzle_identifiers
        known = ids < len(maps.base_of)
        plain = np.flatnonzero(known & maps.is_original[np.where(known, ids, 0)])
        plain = plain[maps.base_of[ids[plain]] >= 0]
        for puzzle in plain.tolist():
            rows = np.arange(*one.puzzle_indices[puzzle : puzzle + 2])
            inputs, labels = stored_examples(one, dataset.metadata, rows)
            inverse = np.repeat(maps.inverse[ids[puzzle]][None], len(rows), axis=0)
            tests = truth.setdefault(maps.bases[maps.base_of[ids[puzzle]]], [])
            for test in zip(arc.undo(inputs, inverse), arc.undo(labels, inverse), strict=True):
                pair = (test[0], test[1] if any(test[1][:2]) else None)
                if pair not in tests:
                    tests.append(pair)
    return truth


def score_arc_folder(
    folder: pathlib.Path, dataset: PuzzleDataset, only_answered: bool = False
) -> dict[str, float]:
    """Scores an evaluation's own folder, writes its submission, returns metrics by set.

    Args:
      folder: of the predictions.
      dataset: the split that was evaluated.
      only_answered: not all of it was (``eval.max_examples``, ``eval.subset``).
    """
    found: dict[str, list[predictions.PredictionFile]] = {}
    for file in predictions.find([folder]):
        found.setdefault(file.set_name, []).append(file)
    values = {}
    for set_name, files in found.items():
        maps = arc_names.find(dataset)
        assert maps is not None  # of a data set there always are
        sets = [set_name] if set_name in dataset.sets else None
        result = score_arc(files, maps, dataset, sets=sets, only_answered=only_answered)
        values |= {f'eval/{set_name}/{name}': v for name, v in result.metrics().items()}
        path = folder / (SUBMISSION if len(found) == 1 else f'{set_name}-{SUBMISSION}')
        files_lib.write_text(path, json.dumps(result.submission))
    return values
