"""Solver: a checkpoint, puzzles in, answers out.

    solver = Solver.from_checkpoint('runs/first')
    for solution in solver.solve(['53..7....6..195....98....6.8...6...3...' '...']):
        print(solution.text, solution.confidence, solution.valid)

Reads the weights and the metadata of a checkpoint only, and runs on whatever devices there
are. Puzzles leave as soon as their halting rule says so (early_exit.py).
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hrm_jax import files, partitioning, tasks
from hrm_jax.checkpoint import layout, store
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import augment
from hrm_jax.errors import DatasetError, PuzzleError
from hrm_jax.inference.early_exit import Worker
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

# Slots of the compiled programs: the smallest that holds all puzzles, or the largest.
_SHAPES = (1, 8, 64, 256)
_QUEUE = 4  # puzzles handed over at a time, per slot


@dataclasses.dataclass(frozen=True)
class Solution:
    """One answer.

    Attributes:
      question, answer: int32 [S], token ids.
      text: the answer as the task writes it.
      confidence: probability in 0..1 that the answer is right, as the model sees it (its halt
        logit is trained to say so); with several samples the mean over those that agree.
      steps: ACT steps spent (mean over samples).
      valid: whether the answer obeys the rules of the task; None: the rules are unknown.
      agreement: share of the samples with this answer.
    """

    question: np.ndarray
    answer: np.ndarray
    text: str
    confidence: float
    steps: float
    valid: bool | None
    agreement: float = 1.0


class Solver:
    """Answers puzzles with one set of weights.

    Args:
      config: the experiment, model sizes filled in.
      weights: of the model, as numpy.
      task: how puzzles are written, and their rules.
      transform: kind of the task's symmetries (augment.TRANSFORMS), for samples.
      devices: where to run; None: all of this process.
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
        self._workers: dict[Any, Worker] = {}

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike, data: str | os.PathLike = '', devices=None
    ) -> 'Solver':
        """Opens a run's folder (its latest step) or one ``checkpoints/STEP``.

        Args:
          path: the checkpoint.
          data: data set whose ``vocab.json`` names the tokens; '': the one it was trained on.
          devices: see the class.

        Raises:
          CheckpointError: there is none, or it is damaged.
          DatasetError: the vocabulary cannot be read.
        """
        saved = store.read_model(layout.resolve(str(path), Path(path)))
        config, facts = saved.config, saved.meta['dataset']
        weights = saved.inference_weights(config.eval.use_ema)
        vocabulary = Path(data or config.data.path) / 'vocab.json'
        words = files.read_json(vocabulary, DatasetError) if vocabulary.is_file() else {}
        task = tasks.kind_of(facts['task'])(
            seq_len=config.model.seq_len,
            vocab_size=config.model.vocab_size,
            pad_id=facts['pad_id'],
            vocabulary=words,
        )
        return cls(config, weights, task, facts['transform'], devices)

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
          puzzles: texts, or token ids int [S].
          steps: longest run in ACT steps; 0: as trained.
          samples: views of each puzzle that are answered: itself and ``samples - 1`` random
            symmetric ones, mapped back; the most frequent answer wins.
          early_exit: stop each puzzle by its own halting rule; False: all run ``steps``.
          identifiers: row of the puzzle table for each puzzle; None: the blank one.
          seed: of everything random: symmetries, and what the model draws.
          progress: told how many more puzzles are done.

        Raises:
          PuzzleError: a text cannot be read (the cell is named), or the task has no known
            symmetries for ``samples``.
        """
        tokens = [self.task.parse(p) if isinstance(p, str) else np.asarray(p) for p in puzzles]
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
            confidence=float(confidence[rows].mean()),
            steps=float(steps.mean()),
            valid=self.task.is_valid(question, answer),
            agreement=len(rows) / len(answers),
        )
