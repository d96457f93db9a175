"""Solver: answers puzzles with the model of a checkpoint.

    solver = Solver.from_checkpoint('runs/first')
    for solution in solver.solve(['53..7....6..195....98....6.8...6...3...' '...']):
        print(solution.text, solution.confidence, solution.valid)

Reads the weights and the metadata of a checkpoint of any format, and runs on whatever devices there
are. Puzzles leave as soon as their halting rule halts them (early_exit.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import os
from pathlib import Path
import sys
from typing import Any

import jax
import numpy as np

from hrm_jax import files, partitioning, tasks
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import augment, records
from hrm_jax.data.puzzles import METADATA, DatasetMetadata
from hrm_jax.errors import PuzzleError
from hrm_jax.inference.early_exit import Worker
from hrm_jax.interop import formats
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

# Slots of the compiled programs: the smallest that holds all puzzles, or the largest.
_SHAPES = (1, 8, 64, 256)
_QUEUE = 4  # puzzles handed over at a time, per slot


@dataclasses.dataclass(frozen=True)
class Solution:
    """One answer.

    Attributes:
      question, answer: int32 [S], token ids; the answer without what follows its end.
      text: the answer as the task writes it, without padding.
      confidence: probability in 0..1 that the answer is right, as the model sees it (its halt
        logit is trained to predict it); with several samples the mean over those that agree. None:
        the model has no halt logit.
      steps: ACT steps spent (mean over samples).
      valid: whether the answer obeys the rules of the task; None: the rules are unknown.
      agreement: share of the samples with this answer.
    """

    question: np.ndarray
    answer: np.ndarray
    text: str
    confidence: float | None
    steps: float
    valid: bool | None
    agreement: float = 1.0


def _task_of(
    saved: SavedModel, data: str | os.PathLike, task: str, log: Callable[[str], None]
) -> tuple[tasks.Task, str]:
    """The task of a model's puzzles, and the kind of its symmetries.

    What is stated counts in this order: ``task``, the checkpoint, its data set; otherwise the task
    is inferred from the sizes.
    """
    model, root = saved.config.model, files.expanded(data or saved.config.data.path or '')
    facts = dict(saved.meta.get('dataset') or {})
    if not facts.get('task'):
        facts |= _facts_of_data(Path(root), model.vocab_size, model.seq_len) if root else {}
    sizes = {'vocab_size': model.vocab_size, 'seq_len': model.seq_len}
    one = {'num_puzzle_identifiers': 1, 'total_groups': 1, 'mean_puzzle_examples': 1.0}
    metadata = records.described(DatasetMetadata.from_dict(one | facts | sizes), root)
    name = task or metadata.task
    if not name and metadata.vocabulary:
        name = 'lisp'
    if not name:
        name = tasks.infer(model.vocab_size, model.seq_len)
        log(
            f'task: {name or "unknown, so puzzles are token ids"} (inferred from '
            f'{model.vocab_size} tokens and {model.seq_len} cells; --task NAME states another)'
        )
    made = dataclasses.replace(metadata, task=name).task_of()
    stated = facts.get('transform') if name == facts.get('task') else None
    return made, made.symmetries if stated is None else stated


def _facts_of_data(root: Path, vocab_size: int, seq_len: int) -> dict[str, Any]:
    """What the data set of a model states, if it is at hand and has the model's sizes."""
    for split in ('test', 'train'):
        path = root / split / METADATA
        if path.is_file():
            data = DatasetMetadata.from_json(path.read_text(encoding='utf-8'), path)
            if (data.vocab_size, data.seq_len) == (vocab_size, seq_len) and data.task:
                sizes = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
                facts = dataclasses.asdict(data)
                return {name: fact for name, fact in facts.items() if name not in sizes}
    return {}


class Solver:
    """Answers puzzles with one set of weights.

    Args:
      config: the experiment, model sizes filled in.
      weights: of the model, as numpy.
      task: how puzzles are written, and their rules.
      transform: kind of the task's symmetries (augment.TRANSFORMS), for samples.
      devices: where to run; None: all of this process.

    Attributes:
      meta: metadata of the checkpoint, where it came from one.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        weights: Weights,
        task: tasks.Task,
        transform: str = 'none',
        devices: Sequence[Any] | None = None,
    ):
        self.config = config
        self.task = task
        self.transform = transform
        self.mesh = partitioning.make_mesh(devices or jax.local_devices())
        self.weights = jax.device_put(weights, partitioning.replicated(self.mesh))
        self.meta: Mapping[str, Any] = {}
        self._workers: dict[Any, Worker] = {}

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        data: str | os.PathLike = '',
        devices=None,
        *,
        task: str = '',
        config: str = '',
        seq_len: int = 0,
        log: Callable[[str], None] = functools.partial(print, file=sys.stderr),
    ) -> 'Solver':
        """Opens a checkpoint of any format.

        Args:
          path: folder of a run (its latest step), one ``checkpoints/STEP``, or anything else that
            ``interop.formats.load`` takes: ``step_N`` of an original, a transformers-style folder,
            a safetensors file, an id of the hub.
          data: data set that names the tokens where the checkpoint does not; '': the one that it
            was trained on.
          devices: see the class.
          task: in place of the task that the checkpoint states, or that is inferred where it
            states none.
          config, seq_len: of checkpoints of other formats, where nothing else states them.
          log: prints which task was inferred.

        Raises:
          CheckpointError: there is none, it is damaged, or lacks a setting that must be stated.
          DatasetError: the vocabulary cannot be read.
        """
        options = {'config': config, 'seq_len': seq_len}
        saved, _ = formats.open_model(path, **options)
        weights = saved.inference_weights(saved.config.eval.use_ema)
        kind, transform = _task_of(saved, data, task, log)
        solver = cls(saved.config, weights, kind, transform, devices)
        solver.meta = saved.meta
        return solver

    def solve(
        self,
        puzzles: Iterable[str | np.ndarray],
        *,
        steps: int = 0,
        samples: int = 1,
        early_exit: bool = True,
        identifiers: Sequence[int] | np.ndarray | None = None,
        seed: int = 0,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[Solution]:
        """Answers puzzles, any number of them.

        Args:
          puzzles: texts, or token ids int [S] (or rows of a grid), or the same with characters.
          steps: longest run in ACT steps; 0: as trained.
          samples: views of each puzzle that are answered: itself and ``samples - 1`` random
            symmetric ones, mapped back; the most frequent answer wins.
          early_exit: stop each puzzle by its own halting rule; False: all run ``steps``.
          identifiers: row of the puzzle table for each puzzle; None: the blank one.
          seed: of everything random: symmetries, and what the model draws.
          progress: called with how many more puzzles are done.

        Raises:
          PuzzleError: a text cannot be read (the cell is named), or the task has no known
            symmetries for ``samples``.
        """
        tokens = [self.task.tokens_of(puzzle) for puzzle in puzzles]
        if not tokens:
            return []
        questions = np.stack(tokens).astype(np.int32)
        ids = np.zeros(len(tokens), np.int32) if identifiers is None else np.array(identifiers)
        views, inverse = self._views(questions, samples, seed)
        found = self._answer(
            views, np.repeat(ids, samples), steps, early_exit, progress, samples, seed
        )
        answers = found['predictions']
        if inverse is not None:
            side = self.task.side
            answers = augment.apply(self.transform, answers, answers, inverse, side)[0]
        confidence = np.exp(-np.logaddexp(0, -found['q_halt'].astype(np.float64)))
        return [
            self._choose(question, answers[rows], confidence[rows], found['steps'][rows])
            for question, rows in zip(
                questions,
                (slice(i * samples, (i + 1) * samples) for i in range(len(tokens))),
                strict=True,
            )
        ]

    def _views(self, questions, samples, seed) -> tuple[np.ndarray, np.ndarray | None]:
        if samples < 1:
            raise PuzzleError(f'samples must be 1 or more; got {samples}.')
        if samples == 1:
            return questions, None
        if self.transform not in ('sudoku', 'dihedral'):
            raise PuzzleError(
                f'samples must be 1 for the task {self.task.name!r}: its puzzles have no '
                f'known symmetries here (transform {self.transform!r}).'
            )
        side, count = self.task.side, len(questions) * samples
        needed = augment.uniforms_needed(self.transform, side)
        uniforms = np.random.default_rng(seed).random((count, needed), np.float32)
        maps = augment.random_maps(self.transform, uniforms, side).astype(np.uint8)
        maps[::samples] = augment.identity_map(self.transform, side)
        rows = np.repeat(questions, samples, axis=0)
        views = augment.apply(self.transform, rows, rows, maps, side)[0]
        return views, augment.inverse_maps(self.transform, maps, side)

    def _answer(self, views, ids, steps, early_exit, progress, samples, seed):
        worker = self._worker(len(views), steps, early_exit)
        labels = np.full((worker.queue, self.task.seq_len), IGNORE_LABEL_ID, np.int32)
        batches = (
            Batch(
                inputs=views[start : start + worker.queue],
                labels=labels[: len(views) - start],
                puzzle_identifiers=ids[start : start + worker.queue],
            )
            for start in range(0, len(views), worker.queue)
        )
        parts, done = [], 0
        for answers, _ in worker.answer(self.weights, batches, seed):
            parts.append(answers)
            before, done = done, done + len(answers.number)
            progress(done // samples - before // samples)
        order = np.argsort(np.concatenate([part.number for part in parts]))
        return {
            name: np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ('predictions', 'q_halt', 'steps')
        }

    def _worker(self, count: int, steps: int, early_exit: bool) -> Worker:
        devices = self.mesh.devices.size
        slots = next((shape for shape in _SHAPES if shape >= count), _SHAPES[-1])
        slots = -(-slots // devices) * devices
        key = (slots, steps, early_exit)
        if key not in self._workers:
            halting = self.config.act.halting if early_exit else 'fixed'
            rule = dataclasses.replace(self.config.act, halting=halting)
            config = dataclasses.replace(self.config, act=rule).with_eval_steps(steps)
            self._workers[key] = Worker(config, self.mesh, slots, slots * _QUEUE)
        return self._workers[key]

    def _choose(self, question, answers, confidence, steps) -> Solution:
        answers = [self.task.finished(question, answer) for answer in answers]
        votes: dict[bytes, list[int]] = {}
        for row, answer in enumerate(answers):
            votes.setdefault(answer.tobytes(), []).append(row)
        # Most votes, then the greatest confidence, as in ARC's voting.
        rows = max(votes.values(), key=lambda r: (len(r), confidence[r].mean()))
        answer = answers[rows[0]]
        return Solution(
            question=question,
            answer=answer,
            text=self.task.text(answer),
            confidence=float(confidence[rows].mean()) if self.config.model.q_head else None,
            steps=float(steps.mean()),
            valid=self.task.is_valid(question, answer),
            agreement=len(rows) / len(answers),
        )
