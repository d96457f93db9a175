"""Solver: answers puzzles with the model of a checkpoint.

    solver = Solver.from_checkpoint('runs/first')
    for solution in solver.solve(['53..7....6..195....98....6.8...6...3...' '...']):
        print(solution.text, solution.confidence, solution.valid)

Reads the weights and the metadata of a checkpoint of any format, and runs on whatever devices there
are. Puzzles leave as soon as their halting rule halts them (early_exit.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import copy
import dataclasses
import functools
import os
import sys
from typing import Any

import jax
import numpy as np

from hrm_jax import partitioning, tasks
from hrm_jax.checkpoint import compatible
from hrm_jax.config import ExperimentConfig, RolloutConfig
from hrm_jax.data import augment
from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.errors import ConfigError, PuzzleError
from hrm_jax.inference import guesses, rules_exit, saved_task
from hrm_jax.inference import rollouts as rollouts_lib
from hrm_jax.inference.early_exit import Worker
from hrm_jax.inference.rollouts import Rollout
from hrm_jax.inference.rollouts_choice import has_halted
from hrm_jax.interop import formats, pretrained
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

# Slots of the compiled programs: the smallest that holds all puzzles, or the largest.
_SHAPES = (1, 8, 64, 256)
# On a CPU the states of all slots should stay in its caches: sudoku9 answers twice as many puzzles
# a second with 8 slots as with 32 (experiments/results/solve_speed.md).
_CACHED_BYTES = 1.5e6
_QUEUE = 4  # puzzles handed over at a time, per slot
_RETRIES_AT_ONCE = 8  # chains of an unsolved puzzle, before the next ones are begun


@dataclasses.dataclass(frozen=True)
class Solution:
    """One answer.

    Attributes:
      question, answer: int32 [S], token ids; the answer without what follows its end.
      text: the answer as the task writes it, without padding.
      confidence: probability in 0..1 that the answer is right, as the model sees it (its halt
        logit is trained to predict it); with several samples or chains the mean over those that
        agree. None: the model has no halt logit.
      steps: ACT steps spent (mean over samples or chains).
      valid: whether the answer obeys the rules of the task; None: the rules are unknown.
      agreement: share of the samples or chains with this answer.
      chains: runs of the puzzle among which the answer was chosen (rollouts).
      abstained: no chain claims a solution (candidate sets); the answer is then the question.
    """

    question: np.ndarray
    answer: np.ndarray
    text: str
    confidence: float | None
    steps: float
    valid: bool | None
    agreement: float = 1.0
    chains: int = 1
    abstained: bool = False


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
        self._workers: dict[Any, Worker | rollouts_lib.Runner] = {}
        self._more: dict[str, Weights] = {}

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
        kind, transform = saved_task.task_of(saved, data, task, log)
        solver = cls(saved.config, weights, kind, transform, devices)
        solver.meta = saved.meta
        return solver

    @classmethod
    def pretrained(cls, name: str, devices=None) -> 'Solver':
        """Opens a model that is installed with this package, e.g. ``sudoku9``.

        Args:
          name: of ``interop.pretrained.names()``; its card is the .md beside the weights.
          devices: see the class.

        Raises:
          CheckpointError: there is no such model; the message lists them.
        """
        return cls.from_checkpoint(pretrained.find(name), devices=devices)

    def with_eval(self, **changes: Any) -> 'Solver':
        """Returns a solver of the same weights under other settings of ``eval``: noise, rollouts.

        Args:
          **changes: fields of ``EvalConfig``.

        Raises:
          ConfigError: they contradict each other or the model.
        """
        solver = copy.copy(self)
        section = dataclasses.replace(self.config.eval, **changes)
        solver.config = dataclasses.replace(self.config, eval=section)
        return solver

    def for_side(self, side: int) -> 'Solver':
        """Returns a solver of the same weights for boards of another size.

        Args:
          side: rows of the board.

        Raises:
          ConfigError: the weights are of one size of board (``ModelConfig.any_size``).
          PuzzleError: there are no boards of that size.
        """
        if side == self.task.side:
            return self
        ConfigError.require(
            self.config.model.any_size and isinstance(self.task, tasks.Board),
            f'boards of {side} rows need weights that serve every size: a symbol axis whose '
            f'symbols share their weights, a block without positions in its shapes (attention), no '
            f'learned positions, no puzzle table. These are of boards of {self.task.seq_len} '
            f'cells.',
        )
        solver = copy.copy(self)
        assert isinstance(self.task, tasks.Board)
        solver.task = self.task.with_side(side)
        of_any = dataclasses.replace(self.config.model, vocab_size=0, seq_len=0)
        model = of_any.for_dataset(
            vocab_size=solver.task.vocab_size,
            seq_len=solver.task.seq_len,
            num_puzzle_identifiers=self.config.model.num_puzzle_identifiers,
            first_symbol=solver.task.first_symbol,
            boxes=solver.task.boxes,
        )
        solver.config = dataclasses.replace(self.config, model=model)
        return solver

    def for_data(self, dataset: PuzzleDataset) -> 'Solver':
        """Returns a solver for the boards of a data set, which ``check_data`` has accepted."""
        if compatible.is_other_size(self.config.model, self.meta, dataset):
            return self.for_side(dataset.metadata.side)
        return self

    def add_checkpoint(self, path: str | os.PathLike, **options: Any) -> None:
        """Lets the chains of one more checkpoint of the same model take part in every rollout.

        Args:
          path: as of ``from_checkpoint``.
          **options: ``config`` and ``seq_len``, likewise.

        Raises:
          CheckpointError: there is none, or it is of another model.
        """
        saved, found = formats.open_model(path, **options)
        compatible.check_same_model(
            saved.meta | {'config': saved.config.to_dict()}, self.config, found
        )
        weights = saved.inference_weights(saved.config.eval.use_ema)
        self._more[str(path)] = jax.device_put(weights, partitioning.replicated(self.mesh))

    def solve(
        self,
        puzzles: Iterable[str | np.ndarray],
        *,
        steps: int = 0,
        samples: int = 1,
        rollouts: RolloutConfig | None = None,
        retries: int = 0,
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
          rollouts: chains of each puzzle and how one is chosen (rollouts.py); None: as the
            experiment's ``eval.rollouts``.
          retries: chains for each puzzle whose answer breaks the rules of the task, in rounds of
            eight (the number is rounded up) until one obeys them: random starts where the model
            draws them, random symmetric views, and after the first round of a Sudoku guesses
            (guesses.py).
          early_exit: stop each puzzle by its own halting rule, or where the model has none as soon
            as its answer obeys the rules of the task (Sudoku); False: all run ``steps``.
          identifiers: row of the puzzle table for each puzzle; None: the blank one.
          seed: of everything random: symmetries, and what the model draws.
          progress: called with how many more puzzles are done; less than 0 where the rules take
            answers back, which are then done when they are mended or given up.

        Raises:
          PuzzleError: a text cannot be read (the cell is named), or the task has no known
            symmetries for ``samples``, or no rules for ``retries``.
          ConfigError: the model or the task has not what ``rollouts`` uses.
        """
        tokens = [self.task.tokens_of(puzzle) for puzzle in puzzles]
        if not tokens:
            return []
        questions = np.stack(tokens).astype(np.int32)
        ids = np.zeros(len(tokens), np.int32) if identifiers is None else np.array(identifiers)
        PuzzleError.require(
            retries == 0 or self.task.has_rules,
            f'retries must be 0 for the task {self.task.name!r}, whose rules are unknown here.',
        )
        asked = self.config.eval.rollouts if rollouts is None else rollouts
        asked = dataclasses.replace(asked, checkpoints=tuple(self._more))
        if retries:
            first = self.solve(
                questions, steps=steps, samples=samples, rollouts=rollouts, early_exit=early_exit,
                identifiers=ids, seed=seed, progress=progress,
            )  # fmt: skip
            return self._retried(first, ids, steps, retries, seed, progress)
        if asked.on or self.config.model.lattice.on:
            PuzzleError.require(
                samples == 1,
                'samples must be 1 with rollouts: views are chains there (rollouts.views=random).',
            )
            config = self._run_config(asked, steps, early_exit)
            return self._roll_out(questions, ids, config, seed, progress)
        views, inverse = self._views(questions, samples, seed)
        found = self._answer(
            views, np.repeat(ids, samples), steps, early_exit, progress, samples, seed
        )
        answers = found['predictions']
        if inverse is not None:
            side = self.task.side
            answers = augment.apply(self.transform, answers, answers, inverse, side)[0]
        confidence = self._confidence(found['q_halt'])
        return [
            self._choose(question, answers[rows], confidence[rows], found['steps'][rows])
            for question, rows in zip(
                questions,
                (slice(i * samples, (i + 1) * samples) for i in range(len(tokens))),
                strict=True,
            )
        ]

    def _retried(
        self,
        found: list[Solution],
        ids: np.ndarray,
        steps: int,
        retries: int,
        seed: int,
        progress: Callable[[int], None],
    ) -> list[Solution]:
        """The solutions, those that break the rules replaced by chains that do not."""
        from_random = self.config.model.initial_state in ('random', 'random_in_training')
        solver = self.with_eval(random_start=True) if from_random else self
        left = [n for n, solution in enumerate(found) if solution.valid is False]
        attempts = {n: found[n].answer for n in left}
        progress(-len(left))
        for number in range(-(-retries // _RETRIES_AT_ONCE)):
            if not left:
                break
            asked = np.stack([found[n].question for n in left])
            guessing = self.task.takes_guesses and guesses.number_of(number) > 0
            again = solver._guess if guessing else solver._rerun
            tried = again(asked, [attempts[n] for n in left], ids[left], steps, number, seed)
            for n, solution in zip(left, tried, strict=True):
                attempts[n], last = solution.answer, found[n]
                spent = last.steps * last.chains + solution.steps * solution.chains
                chains = last.chains + solution.chains
                best = solution if solution.valid else last
                found[n] = dataclasses.replace(best, steps=spent / chains, chains=chains)
            before, left = left, [n for n in left if found[n].valid is False]
            progress(len(before) - len(left))
        progress(len(left))
        return found

    def _rerun(self, questions, attempts, ids, steps, number, seed) -> list[Solution]:
        """A round of chains from random starts, on symmetric views."""
        del attempts
        symmetric = self.transform in ('sudoku', 'dihedral')
        asked = RolloutConfig(
            breadth=_RETRIES_AT_ONCE, select='rules', views='random' if symmetric else 'none'
        )
        config = self._run_config(asked, steps, early_exit=True)
        own = seed + 1 + number * _RETRIES_AT_ONCE
        return self._roll_out(questions, ids, config, own, lambda _: None)

    def _guess(self, questions, attempts, ids, steps, number, seed) -> list[Solution]:
        """A round of chains that begin with guesses."""
        rng, count = np.random.default_rng((seed, number)), guesses.number_of(number)
        filled = [
            guesses.question(self.task, asked, attempt, count, rng)
            for asked, attempt in zip(questions, attempts, strict=True)
            for _ in range(_RETRIES_AT_ONCE)
        ]
        chains = self.solve(
            filled, steps=steps, rollouts=RolloutConfig(), seed=seed + number,
            identifiers=np.repeat(ids, _RETRIES_AT_ONCE),
        )  # fmt: skip
        found = []
        for n, asked in enumerate(questions):
            own = chains[n * _RETRIES_AT_ONCE : (n + 1) * _RETRIES_AT_ONCE]
            one = own[guesses.best(self.task, asked, [chain.answer for chain in own])]
            found.append(dataclasses.replace(
                one, question=asked, valid=self.task.is_valid(asked, one.answer),
                steps=float(np.mean([chain.steps for chain in own])), chains=len(own),
                agreement=1 / len(own),
            ))  # fmt: skip
        return found

    @property
    def _has_confidence(self) -> bool:
        return self.config.model.has_halt_logit

    def _confidence(self, q_halt: np.ndarray) -> np.ndarray:
        """Probabilities that answers are right: of logits, or as the model gives them."""
        q_halt = q_halt.astype(np.float64)
        return q_halt if self.config.model.q_confidence else np.exp(-np.logaddexp(0, -q_halt))

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
        views = rollouts_lib.Views('random', self.transform, self.task.side, samples, seed)
        return views.of(questions)

    def _roll_out(self, questions, ids, config, seed, progress) -> list[Solution]:
        runner = self._worker(len(questions) * config.eval.rollouts.breadth, config)
        batches = (
            Batch(
                inputs=questions[start : start + runner.queue],
                labels=np.full(questions[:1].shape, IGNORE_LABEL_ID, np.int32),
                puzzle_identifiers=ids[start : start + runner.queue],
            )
            for start in range(0, len(questions), runner.queue)
        )
        weights = [self.weights, *self._more.values()]
        found: dict[int, Rollout] = {}
        for part in runner.run(weights, batches, self.task, self.transform, seed):
            found |= {rollout.number: rollout for [rollout] in part}
            progress(len(part))
        return [self._solution(questions[n], found[n]) for n in range(len(questions))]

    def _solution(self, question: np.ndarray, found: Rollout) -> Solution:
        chains, rows = found.chains, found.agreeing
        answer = chains.answers[found.chosen]
        confidence = float(self._confidence(chains.q_halt[rows]).mean())
        abstained = False
        if self.config.model.lattice.on and not has_halted(chains, self.config.act)[found.chosen]:
            answer, abstained = question, True
        return Solution(
            question=question,
            answer=answer,
            text=self.task.text(answer),
            confidence=confidence if self._has_confidence else None,
            steps=float(chains.steps.mean()),
            valid=self.task.is_valid(question, answer),
            agreement=len(rows) / len(chains.steps),
            chains=len(chains.steps),
            abstained=abstained,
        )

    def _answer(self, views, ids, steps, early_exit, progress, samples, seed):
        config = self._run_config(RolloutConfig(), steps, early_exit)
        worker = self._worker(len(views), config)
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

    def _run_config(
        self, rollouts: RolloutConfig, steps: int, early_exit: bool
    ) -> ExperimentConfig:
        """The experiment as it is run: for the solver, outputs and further depths mean nothing."""
        section = dataclasses.replace(
            self.config.eval,
            rollouts=rollouts,
            halting='adaptive' if early_exit else 'max',
            halt_max_steps=steps or self.config.eval.halt_max_steps,
            depth_multiples=(),
            save_outputs=(),
        )
        return dataclasses.replace(self.config, eval=section)

    def _worker(self, count: int, config: ExperimentConfig) -> Any:
        """The compiled loop of an experiment: a ``Runner`` of rollouts, or a ``Worker``."""
        devices = self.mesh.devices.size
        shapes = self._shapes(config)
        slots = next((shape for shape in shapes if shape >= count), shapes[-1])
        slots = -(-slots // devices) * devices
        if (slots, config) not in self._workers:
            if config.chooses_answers:
                made = rollouts_lib.Runner(config, self.mesh, slots, slots * _QUEUE)
            else:
                early = config.eval.halting == 'adaptive'
                rule = config.act if early else dataclasses.replace(config.act, halting='fixed')
                # A model that never halts by itself leaves it to the rules, where they are known.
                by_rules = early and config.act.halting == 'fixed'
                made = Worker(
                    dataclasses.replace(config, act=rule), self.mesh, slots, slots * _QUEUE,
                    rules_exit.of_task(self.task) if by_rules else None,
                )  # fmt: skip
            self._workers[slots, config] = made
        return self._workers[slots, config]

    def _shapes(self, config: ExperimentConfig) -> tuple[int, ...]:
        """Numbers of slots to compile for."""
        if self.mesh.devices.flat[0].platform != 'cpu' or config.chooses_answers:
            return _SHAPES  # chains of one puzzle must find room beside each other
        model = config.model
        values = (
            model.total_len * model.hidden_size * (model.num_symbols if model.has_symbols else 1)
        )
        most = max(_SHAPES[1], _CACHED_BYTES / (4 * values))
        return tuple(shape for shape in _SHAPES if shape <= most)

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
            confidence=float(confidence[rows].mean()) if self._has_confidence else None,
            steps=float(steps.mean()),
            valid=self.task.is_valid(question, answer),
            agreement=len(rows) / len(answers),
        )
