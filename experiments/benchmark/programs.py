"""Programs of this project: those of a case, compiled and ready to be run any number of times."""

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark import cases
from hrm_jax import eval_step, partitioning, train_state, train_step
from hrm_jax.data import pipeline, puzzles
from hrm_jax.inference import early_exit
from hrm_jax.model import flops, hrm, puzzle_table

TOTAL_STEPS = 100_000  # of the learning-rate schedule
QUEUES = 4  # batches that adaptive inference works through at a time


@dataclasses.dataclass
class Program:
    """Something to time.

    Attributes:
      run: runs it a number of times and waits for the last result.
      examples: rows that one run deals with.
      flops: of the matrix products of one run, counted by hand (model/flops.py); 0: none.
      bytes: that one run moves by XLA's count (each loop's body as often as it runs); 0: unknown.
      memory: bytes that the compiled program needs on one device, arguments included; 0: unknown.
      steps: train steps of one run (config.train.steps_per_dispatch).
      notes: anything else worth a line.
    """

    run: Callable[[int], None]
    examples: int
    flops: float = 0.0
    bytes: float = 0.0
    memory: int = 0
    steps: int = 1
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def seconds(self, times: int) -> float:
        """Seconds for ``times`` runs."""
        began = time.perf_counter()
        self.run(times)
        return time.perf_counter() - began


def _memory(compiled: Any) -> int:
    found = compiled.memory_analysis()
    if found is None:
        return 0
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return kept + found.temp_size_in_bytes


def _cost(compiled: Any, name: str) -> float:
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return float(cost.get(name, 0.0))


class Ours:
    """The programs of one case on all devices.

    Args:
      case: what to measure.
      count_bytes: compile the programs once more with their loops written out, for ``bytes``.
    """

    def __init__(self, case: cases.Case, count_bytes: bool = True):
        self.case, self.config = case, case.config
        self.mesh = partitioning.make_mesh(config=case.config.mesh)
        self.count_bytes = count_bytes
        self.state = train_state.create(self.config, self.mesh)
        self.batch = partitioning.put_global(cases.batch(case), self.mesh)

    def _unrolled(self, make: Callable[[Any], Any], *args) -> float:
        if not self.count_bytes:
            return 0.0
        model = dataclasses.replace(self.config.model, unroll_cycles=True)
        compiled = make(dataclasses.replace(self.config, model=model)).lower(*args).compile()
        return _cost(compiled, 'bytes accessed')

    @property
    def _train_flops(self) -> float:
        config = self.config
        return self.case.rows * flops.train_step(config.model, config.act, config.loss)

    def train_step(self) -> Program:
        """Refill, ACT step, gradients and both optimizers, as train.py runs it."""

        def make(config):
            return train_step.make_train_steps(config, TOTAL_STEPS, self.mesh)

        count = max(1, self.config.train.steps_per_dispatch)
        batches = (self.batch,) * count
        steps = make(self.config).lower(self.state, batches).compile()

        def run(times):
            for _ in range(times):
                self.state, sums = steps(self.state, batches)
            jax.block_until_ready((self.state, sums))

        moved = count * self._unrolled(make, self.state, batches[:1])
        notes = {'steps per call': count} if count > 1 else {}
        work = count * self._train_flops
        return Program(run, count * self.case.rows, work, moved, _memory(steps), count, notes)

    def gradients(self) -> Program:
        """The same without the optimizers."""

        def make(config):
            def gradients(weights, rows, carry):
                with partitioning.activate(self.mesh):

                    def loss(params, rows):
                        moved = weights.replace(params=params)
                        least = jnp.zeros(self.case.rows, jnp.int32)
                        return train_step.step_loss(config, moved, rows, carry, least)

                    return jax.grad(loss, (0, 1), has_aux=True)(weights.params, rows)

            return jax.jit(gradients)

        rows = puzzle_table.puzzle_rows(self.state.weights, self.batch.puzzle_identifiers)
        carry = dataclasses.replace(self.state.carry, batch=self.batch)
        # The table is not an argument: its rows are.
        args = (self.state.weights.replace(puzzle_table=None), rows, carry)
        compiled = make(self.config).lower(*args).compile()
        # Copies: the train step takes the state's own memory.
        args = jax.tree.map(jnp.copy, args)

        def run(times):
            for _ in range(times):
                result = compiled(*args)
            jax.block_until_ready(result)

        moved = self._unrolled(make, *args)
        return Program(run, self.case.rows, self._train_flops, moved, _memory(compiled))

    def eval_step(self) -> Program:
        """All ACT steps of a batch, and its scores."""
        steps = self.config.eval_steps
        evaluate = jax.jit(eval_step.make_eval_step(self.config, self.mesh))
        compiled = evaluate.lower(self.state.weights, self.batch).compile()

        def run(times):
            for _ in range(times):
                result = compiled(self.state.weights, self.batch)
            jax.block_until_ready(result)

        def make(config):  # one of the steps: the loop over them would be counted once
            return jax.jit(functools.partial(hrm.act_step, config.model))

        weights = self.state.weights
        rows = puzzle_table.puzzle_rows(weights, self.batch.puzzle_identifiers)
        args = (
            weights.replace(puzzle_table=None), self.state.carry.latent, self.batch.inputs, rows
        )  # fmt: skip
        moved = steps * self._unrolled(make, *args)
        work = self.case.rows * steps * flops.act_step(self.config.model)
        notes = {'ACT steps': steps}
        if partitioning.is_split_cpu(self.mesh):
            notes['CPU devices'] = self.mesh.size
        return Program(run, self.case.rows, work, moved, _memory(compiled), notes=notes)

    def adaptive_inference(self) -> Program:
        """Puzzles that leave when they halt, with random Q weights so that about half do so."""
        config = self.config
        slots = self.case.rows
        worker = early_exit.Worker(config, self.mesh, slots, QUEUES * slots)
        # Copies: the train step takes the state's own memory.
        weights = jax.tree.map(jnp.copy, self.state.weights)
        if config.model.q_head:
            kernel = weights.params['q_head']['kernel']
            noise = jax.random.normal(jax.random.key(0), kernel.shape, kernel.dtype)
            q_head = {'kernel': noise, 'bias': jnp.zeros(2)}
            weights = weights.replace(params={**weights.params, 'q_head': q_head})
        queue = cases.batch(self.case, QUEUES * slots)
        program = Program(lambda times: None, QUEUES * slots)

        def run(times):
            steps = [answers.steps for answers, _ in worker.answer(weights, [queue] * times)]
            spent = float(sum(s.sum() for s in steps)) / times
            program.flops = spent * flops.act_step(config.model)
            program.notes['mean ACT steps'] = round(spent / program.examples, 2)

        program.run = run
        return program

    def input_pipeline(self) -> Program:
        """Batches gathered and augmented on the host, and put onto the devices."""
        data, augmentation = _synthetic_data(self.case)
        batches = pipeline.train_iterator(data, self.case.rows, 0, augmentation=augmentation)

        def run(times):
            for _ in range(times):
                placed = partitioning.put_global(next(batches), self.mesh)
            jax.block_until_ready(placed)

        return Program(run, self.case.rows, notes={'augmentation': augmentation})

    PROGRAMS = {
        'train step': train_step,
        'forward and backward': gradients,
        'eval step': eval_step,
        'adaptive inference': adaptive_inference,
        'input pipeline': input_pipeline,
    }

    def make(self, name: str) -> Program:
        """Compiles the program called ``name``."""
        return self.PROGRAMS[name](self)


def _synthetic_data(case: cases.Case) -> tuple[puzzles.PuzzleDataset, str]:
    """1,000 random puzzles in memory, and the costliest augmentation that fits them."""
    model = case.config.model
    kind = case.name.split('_')[0]
    transform = {'sudoku': 'sudoku', 'maze': 'dihedral', 'arc1': 'arc', 'arc2': 'arc'}.get(kind)
    made = cases.batch(case, 1000)
    stored = puzzles.PuzzleSet.of_examples(made.inputs.astype('uint8'), made.labels.astype('uint8'))
    if transform == 'arc':
        extents = jnp.full((1000, 4), 15, 'uint8')
        stored = dataclasses.replace(stored, extents=jax.device_get(extents))
    metadata = puzzles.DatasetMetadata(
        vocab_size=model.vocab_size,
        seq_len=model.seq_len,
        num_puzzle_identifiers=model.num_puzzle_identifiers,
        total_groups=1000,
        mean_puzzle_examples=1.0,
        transform=transform or 'none',
    )
    data = puzzles.PuzzleDataset(metadata, {'all': stored})
    return data, 'on_the_fly' if transform else 'stored'
