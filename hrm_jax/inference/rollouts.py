"""Rollouts: several chains for each puzzle, from which one answer is chosen.

Breadth comes from random starts, from noise, from views of the puzzle (its symmetries) and from
several checkpoints. Chains run through the slots of early_exit.py, so that work follows need; how
one is chosen: rollouts_choice.py. Sources: EqR (arXiv 2605.21488, evaluators/eval_fn.py of
locuslab/EqR), PTRM (2605.19943), SIC (2601.19085), Augmented HRM (2601.10679).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools

from jax.sharding import Mesh
import numpy as np

from hrm_jax import partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import augment
from hrm_jax.errors import ConfigError
from hrm_jax.inference import early_exit, rollouts_choice
from hrm_jax.inference.rollouts_choice import Chains
from hrm_jax.model import flops
from hrm_jax.tasks import Task
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

_TRANSFORMS = {'random': ('sudoku', 'dihedral'), 'relabel': ('sudoku',)}


@dataclasses.dataclass(frozen=True)
class Rollout:
    """The chains of one puzzle at one depth, and the one that was chosen.

    Attributes:
      number: of the puzzle in the stream.
      chains: of all checkpoints, one checkpoint after the other.
      chosen: which of them gives the answer.
      agreeing: chains with the same answer.
    """

    number: int
    chains: Chains
    chosen: int
    agreeing: np.ndarray

    @property
    def answer(self) -> np.ndarray:
        return self.chains.answers[self.chosen]

    @property
    def steps(self) -> int:
        """ACT steps of all chains together."""
        return int(self.chains.steps.sum())


def flops_of(config: ExperimentConfig, steps: float) -> float:
    """FLOPs of the matrix products of ACT steps at inference."""
    return steps * flops.act_step(config.inference_model)


class Views:
    """Views of a stream of puzzles: maps to equal puzzles, and the maps back.

    Args:
      kind: see ``RolloutConfig.views``.
      transform: of the task (augment.TRANSFORMS).
      side: rows of the board.
      breadth: views of each puzzle.
      seed: of random ones.
    """

    def __init__(self, kind: str, transform: str, side: int, breadth: int, seed: int):
        self._kind, self._transform, self._side, self._breadth = kind, transform, side, breadth
        self._rng = np.random.default_rng(seed)

    def of(self, questions_NS: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the views [N * breadth, S] of the next puzzles, and the maps that undo them."""
        rows = np.repeat(questions_NS, self._breadth, axis=0)
        if self._kind == 'none':
            return rows, None
        maps = self._maps(len(questions_NS))
        views = augment.apply(self._transform, rows, rows, maps, self._side)[0]
        return views, augment.inverse_maps(self._transform, maps, self._side)

    def _maps(self, count: int) -> np.ndarray:
        if self._kind == 'relabel':
            shifts = np.arange(self._breadth) % self._side
            return np.tile(augment.cyclic_relabellings(shifts, self._side), (count, 1))
        needed = augment.uniforms_needed(self._transform, self._side)
        uniforms = self._rng.random((count * self._breadth, needed), np.float32)
        maps = augment.random_maps(self._transform, uniforms, self._side).astype(np.uint8)
        maps[:: self._breadth] = augment.identity_map(self._transform, self._side)
        return maps


class Runner:
    """Compiled rollouts of one experiment.

    Args:
      config: ``eval.rollouts`` and ``eval.halting`` state what is run; see ``early_exit.work``.
      mesh: the slots spread over it.
      slots: chains in progress at a time, about; a multiple of the devices.
      queue: chains handed to the device at a time, about.
    """

    def __init__(self, config: ExperimentConfig, mesh: Mesh, slots: int, queue: int):
        partitioning.check_batch_size('the number of slots', slots, mesh)
        self.config, breadth = config, config.eval.rollouts.breadth
        if config.eval.rollouts.halt_together:
            multiple = np.lcm(breadth, mesh.devices.size)
            slots = int(-(-slots // multiple) * multiple)
        # Puzzles handed over at a time.
        self.queue = max(1, queue // breadth)
        if not config.eval.rollouts.on and config.eval.halting == 'max':
            # One chain: early_exit.work looks at ``eval.halting`` for rollouts only.
            config = dataclasses.replace(
                config, act=dataclasses.replace(config.act, halting='fixed')
            )
        self._worker = early_exit.Worker(config, mesh, slots, self.queue * breadth)

    def check(self, task: Task, transform: str) -> None:
        """Checks that the task has what the settings use.

        Raises:
          ConfigError: it has no rules, or no such views.
        """
        rollouts = self.config.eval.rollouts
        ConfigError.require(
            rollouts.select != 'rules' or task.has_rules,
            f'eval.rollouts.select=rules needs a task with rules; those of {task.name!r} are '
            f'unknown here. Use another selection.',
        )
        if rollouts.views == 'none':
            return
        allowed = _TRANSFORMS[rollouts.views]
        ConfigError.require(
            transform in allowed,
            f'eval.rollouts.views={rollouts.views} needs symmetries of the kind '
            f'{" or ".join(allowed)}; those of {task.name!r} here are {transform!r}.',
        )

    def run(
        self,
        weights: Sequence[Weights],
        batches: Iterable[Batch],
        task: Task,
        transform: str,
        seed: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[list[Rollout]]]:
        """Runs the chains of a stream of puzzles; what is complete comes out.

        Args:
          weights: of each checkpoint, on the mesh.
          batches: numpy, of at most ``queue`` puzzles each; puzzles are numbered through all of
            them. Labels are not read.
          task: of the puzzles.
          transform: kind of its symmetries (augment.TRANSFORMS).
          seed: of what is drawn.
          should_stop: see ``early_exit.Worker.answer``.

        Yields:
          For some puzzles, in the order of their readiness, one ``Rollout`` for each of
          ``early_exit.read_depths``; that of the usual depth first.
        """
        self.check(task, transform)
        rollouts = self.config.eval.rollouts
        views = Views(rollouts.views, transform, task.side, rollouts.breadth, seed)
        gathered = _Gathered(self.config, task, transform, len(weights))
        fed = (self._chains_of(batch, views, gathered) for batch in batches)
        # Every checkpoint gets the same chains, whose draws are the same too.
        streams = [
            self._worker.answer(one, part, seed, should_stop)
            for one, part in zip(weights, itertools.tee(fed, len(weights)), strict=True)
        ]
        for parts in zip(*streams, strict=True):
            for place, (answers, _) in enumerate(parts):
                gathered.add(place, answers)
            yield gathered.complete()

    @staticmethod
    def _chains_of(batch: Batch, views: Views, gathered: '_Gathered') -> Batch:
        inputs, inverse = views.of(batch.inputs)
        breadth = len(inputs) // len(batch.inputs)
        gathered.ask(batch.inputs, inverse)
        return Batch(
            inputs=inputs.astype(np.int32),
            labels=np.full(inputs.shape, IGNORE_LABEL_ID, np.int32),
            puzzle_identifiers=np.repeat(batch.puzzle_identifiers, breadth),
        )


class _Gathered:
    """Answers of chains by puzzle, until all chains of a puzzle are there."""

    def __init__(self, config: ExperimentConfig, task: Task, transform: str, checkpoints: int):
        self._config, self._task, self._transform = config, task, transform
        self._breadth = config.eval.rollouts.breadth
        self._chains = checkpoints * self._breadth
        self._depths = early_exit.read_depths(config)
        self._asked, self._puzzles = 0, {}
        self._ready: list[int] = []

    def ask(self, questions_NS: np.ndarray, inverse: np.ndarray | None) -> None:
        """Remembers the next puzzles and the maps back from their views."""
        for row, question in enumerate(questions_NS):
            first = row * self._breadth
            maps = None if inverse is None else inverse[first : first + self._breadth]
            self._puzzles[self._asked + row] = _Open(question, maps, [{} for _ in self._depths])
        self._asked += len(questions_NS)

    def add(self, checkpoint: int, answers: early_exit.Answers) -> None:
        """Takes in answers of chains."""
        for row in range(len(answers.number)):
            puzzle, chain = divmod(int(answers.number[row]), self._breadth)
            found = self._puzzles[puzzle]
            depth = 0
            if len(self._depths) > 1:  # then all chains run to the last depth
                depth = self._depths.index(int(answers.steps[row]))
            found.answers[depth][checkpoint * self._breadth + chain] = (
                answers.predictions[row], answers.q_halt[row], answers.q_continue[row],
                answers.steps[row], answers.change[row],
            )  # fmt: skip
            if all(len(one) == self._chains for one in found.answers):
                self._ready.append(puzzle)

    def complete(self) -> list[list[Rollout]]:
        """Returns the puzzles that have become complete, and forgets them."""
        ready, self._ready = self._ready, []
        return [self._chosen(number, self._puzzles.pop(number)) for number in ready]

    def _chosen(self, number: int, found: '_Open') -> list[Rollout]:
        return [self._rollout(number, found, answers) for answers in found.answers]

    def _rollout(self, number: int, found: '_Open', answers: dict) -> Rollout:
        columns = zip(*(answers[chain] for chain in range(self._chains)), strict=True)
        predictions, q_halt, q_continue, steps, change = map(list, columns)
        tokens, task = np.stack(predictions), self._task
        if found.maps is not None:
            maps = np.tile(found.maps, (self._chains // self._breadth, 1))
            tokens = augment.apply(self._transform, tokens, tokens, maps, task.side)[0]
        chains = Chains(
            predictions=tokens,
            answers=np.stack([task.finished(found.question, answer) for answer in tokens]),
            q_halt=np.array(q_halt),
            q_continue=np.array(q_continue),
            steps=np.array(steps),
            change=np.array(change),
        )
        chosen = rollouts_choice.choose(
            self._config.eval.rollouts.select,
            chains,
            self._config.act,
            lambda answer: task.is_valid(found.question, answer),
        )
        same = (chains.answers == chains.answers[chosen]).all(1)
        return Rollout(number, chains, chosen, np.flatnonzero(same))


@dataclasses.dataclass
class _Open:
    """A puzzle in progress: its question, maps back, and at each depth chain -> answer."""

    question: np.ndarray
    maps: np.ndarray | None
    answers: list[dict]
