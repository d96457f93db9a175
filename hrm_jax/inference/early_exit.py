"""Early exit: a puzzle that its halting rule halts leaves, and its slot is refilled.

The original always runs all steps at evaluation. Here a fixed number of slots works through a
queue inside one compiled loop: a slot whose puzzle halts (``act.halt``, as in training but
without exploration) takes the next puzzle from the queue at the following step. Rows do not
see each other, so an answer is what the puzzle alone would get; the work follows the need.

Rollouts (rollouts.py) run here too: a chain is a puzzle with a number of its own, and
``eval.rollouts.breadth`` rows of the queue in a row are the chains of one puzzle.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from hrm_jax import act, losses, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.inference import bounded, rules_exit
from hrm_jax.inference.slots import (
    Answers,
    Finished,
    Slots,
    Work,
    begun,
    empty_slots,
    read_depths,
)
from hrm_jax.model import draws, hrm, puzzle_table, starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Sums, Weights


def _rows(mask_B: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(
        lambda n, o: jnp.where(mask_B.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, old
    )


def work(
    config: ExperimentConfig,
    weights: Weights,
    slots: Slots,
    queue: Batch,
    length: jax.Array,
    first: jax.Array,
    drain: jax.Array,
    key: jax.Array | None = None,
    solved: rules_exit.Solved | None = None,
) -> tuple[Slots, Finished, Sums]:
    """``proceed`` to the end of a queue: the slots, what has finished, and the sums over it."""
    new = begun(config, slots, queue.inputs.shape[0])
    new, _ = proceed(config, weights, new, queue, length, first, drain, key, solved=solved)
    return new.slots, new.done, new.sums


def proceed(
    config: ExperimentConfig,
    weights: Weights,
    state: Work,
    queue: Batch,
    length: jax.Array,
    first: jax.Array,
    drain: jax.Array,
    key: jax.Array | None = None,
    limit: jax.Array | int | None = None,
    solved: rules_exit.Solved | None = None,
) -> tuple[Work, jax.Array]:
    """Runs ACT steps until the queue is empty and a slot idle, or until nothing is left to do.

    Args:
      config: ``act`` sets the halting rule; ``eval.halt_max_steps`` (or ``act``'s) the longest;
        ``eval.rollouts`` how many rows in a row are chains of one puzzle, and then ``eval.halting``
        whether the rule counts.
      weights: the model.
      state: the queue in progress.
      queue: [N, ...] waiting puzzles; labels are for the sums only, the model never sees them.
      length: int32 [], how many rows of the queue are real.
      first: int32 [], number of the first one in the whole stream.
      drain: bool [], finish what is in the slots although the queue is empty.
      key: of what is drawn: each puzzle takes the fold of its number (``draws.per_chain``), each of
        its steps that of its own. None: nothing is drawn.
      limit: ACT steps at most; None: no limit. Calls with a limit, one after the other, compute
        what one call without it does.
      solved: a puzzle also leaves when this accepts its answer (rules_exit.py).

    Returns:
      The new state, and bool []: whether something is left to do.
    """
    rollouts, depths = config.eval.rollouts, read_depths(config)
    whole = rollouts.on and config.eval.halting == 'max'
    halting = 'fixed' if whole else config.act.halting
    rule = dataclasses.replace(config.act, halting=halting, halt_max_steps=depths[-1])
    # Losses are summed over finished rows; those without a scored cell are padding.
    loss = dataclasses.replace(config.loss, count_empty_rows=False)
    count, room = state.slots.number.shape[0], state.done.number.shape[0]
    model = config.inference_model
    ready_weights = hrm.laid_out(model, weights)

    def is_busy(loop):
        head, slots, _, _ = loop
        idle_B = slots.number < 0
        return (head < length) | jnp.where(drain, ~idle_B.all(), ~idle_B.any())

    def step(loop):
        head, slots, done, sums = loop
        idle_B = slots.number < 0
        place_B = head + jnp.cumsum(idle_B, dtype=jnp.int32) - 1
        taken_B = idle_B & (place_B < length)
        source_B = jnp.clip(place_B, 0, queue.inputs.shape[0] - 1)
        batch = _rows(taken_B, jax.tree.map(lambda x: x[source_B], queue), slots.batch)
        number_B = jnp.where(taken_B, first + place_B, slots.number)
        keys = draws.per_chain(key, number_B, rollouts.breadth)
        fresh = starts.fresh_latent(model, weights, count, keys)
        latent = _rows(taken_B, fresh, slots.latent)
        steps_B = jnp.where(taken_B, 0, slots.steps) + 1

        rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)
        keys = draws.fold(keys, steps_B)
        latent, outputs = hrm.act_step(model, ready_weights, latent, batch.inputs, rows, keys)

        busy_B = number_B >= 0
        least_B = act.inference_min_steps(steps_B, rule)
        ready_B = act.halt(outputs, steps_B, least_B, rule)
        predictions_BS = jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)
        if solved is not None:
            ready_B = ready_B | solved(batch.inputs, predictions_BS)
        ready_B = busy_B & ready_B
        if rollouts.halt_together:
            # Slots and queue hold whole puzzles, whose chains start and stop together.
            first_B = ready_B.reshape(-1, rollouts.breadth).any(1)
            ready_B = jnp.repeat(first_B, rollouts.breadth)
        changes, change_B = slots.changes, None
        if changes is not None:
            changes, change_B = changes.after(outputs.logits, steps_B)
        labels = jnp.where(ready_B[:, None], batch.labels, IGNORE_LABEL_ID)
        _, new = losses.act_loss(outputs, labels, steps_B, ready_B, None, loss)
        answers_B = ready_B
        for depth in depths[:-1]:
            answers_B = answers_B | (busy_B & (steps_B == depth))
        # Rows that give no answer write beyond the end, where nothing is kept.
        target_B = jnp.where(answers_B, done.count + jnp.cumsum(answers_B) - 1, room)

        def put(to, rows):
            return to.at[target_B].set(rows, mode='drop')

        done = Finished(
            count=done.count + answers_B.sum(dtype=jnp.int32),
            number=put(done.number, number_B),
            predictions=put(done.predictions, predictions_BS),
            q_halt=put(done.q_halt, outputs.q_halt),
            q_continue=put(done.q_continue, outputs.q_continue),
            steps=put(done.steps, steps_B),
            change=None if change_B is None else put(done.change, change_B),
        )
        slots = Slots(latent, batch, jnp.where(ready_B, -1, number_B), steps_B, changes)
        head = head + taken_B.sum(dtype=jnp.int32)
        return head, slots, done, sums + new

    loop = (state.head, state.slots, state.done, state.sums)
    if limit is None:
        loop = jax.lax.while_loop(is_busy, step, loop)
    else:
        _, loop = jax.lax.while_loop(
            lambda counted: (counted[0] < limit) & is_busy(counted[1]),
            lambda counted: (counted[0] + 1, step(counted[1])),
            (jnp.int32(0), loop),
        )
    return Work(*loop), is_busy(loop)


class Worker:
    """A compiled ``work`` and the host's side of it.

    Args:
      config: see ``work``.
      mesh: the slots spread over it.
      slots: puzzles in progress at a time; a multiple of the devices.
      queue: puzzles handed to the device at a time.
      solved: see ``proceed``.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        mesh: Mesh,
        slots: int,
        queue: int,
        solved: rules_exit.Solved | None = None,
    ):
        partitioning.check_batch_size('the number of slots', slots, mesh)
        self.config = config
        self.slots = slots
        self.queue = queue
        self._mesh = mesh

        def run(weights, slots, queue, length, first, drain, seed):
            with partitioning.activate(mesh):
                key = jax.random.key(seed)
                return work(config, weights, slots, queue, length, first, drain, key, solved)

        def some(weights, state, queue, length, first, drain, seed, limit):
            with partitioning.activate(mesh):
                key = jax.random.key(seed)
                found = (queue, length, first, drain, key, limit)
                return proceed(config, weights, state, *found, solved=solved)

        rows, whole = partitioning.batch_sharding(mesh), partitioning.replicated(mesh)
        self._run: Callable[..., Any] = jax.jit(
            run,
            in_shardings=(None, rows, whole, None, None, None, None),
            out_shardings=(rows, whole, whole),
            donate_argnums=(1,),
        )
        state = Work(whole, rows, whole, whole)  # pyright: ignore[reportArgumentType] # shardings
        self._some: Callable[..., Any] = jax.jit(
            some,
            in_shardings=(None, state, whole, None, None, None, None, None),
            out_shardings=(state, whole),
            donate_argnums=(1,),
        )
        self._begun = jax.jit(
            lambda slots: begun(config, slots, queue), in_shardings=(rows,), out_shardings=state
        )
        self._limit = bounded.steps_per_call(config, slots, mesh)  # ACT steps of a call
        # The longest that a queue may take.
        steps = read_depths(config)[-1] * (-(-queue // slots) + 1)
        self._is_long = steps > self._limit
        self._empty = jax.jit(lambda: empty_slots(config, slots), out_shardings=rows)

    def answer(
        self,
        weights: Weights,
        batches: Iterable[Batch],
        seed: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Answers, Sums]]:
        """Answers a stream of puzzles; what is ready comes out while the rest is in progress.

        Args:
          weights: on the mesh.
          batches: numpy, of at most ``queue`` rows each; rows are numbered through all of them.
          seed: of what is drawn.
          should_stop: asked about once a second where a queue takes longer; ends the answers.

        Yields:
          Some answers, in the order of their readiness, and the sums over them.
        """
        slots, first, seed32 = self._empty(), 0, draws.seed_of(seed)
        for batch in itertools.chain(batches, (None,)):
            length = 0 if batch is None else len(batch.inputs)
            given = (self._padded(batch), length, first, batch is None, seed32)
            found = self._in_calls(weights, slots, given, should_stop)
            if found is None:
                return
            slots, done, sums = found
            first += length
            yield self._on_host(done, sums)

    def _in_calls(
        self, weights: Weights, slots: Slots, given: tuple, should_stop: Callable[[], bool]
    ) -> tuple[Slots, Finished, Sums] | None:
        """``work`` in one call, or in several with a limit; None where it was stopped."""
        if not self._is_long:
            return self._run(weights, slots, *given)
        state, is_busy = self._begun(slots), True
        while is_busy:
            state, more = self._some(weights, state, *given, self._limit)
            if bounded.stopped_before(more, should_stop):
                return None
            is_busy = bool(more)
        return state.slots, state.done, state.sums

    def _padded(self, batch: Batch | None) -> Batch:
        cells = self.config.model.seq_len
        filled = Batch(
            inputs=np.zeros((self.queue, cells), np.int32),
            labels=np.full((self.queue, cells), IGNORE_LABEL_ID, np.int32),
            puzzle_identifiers=np.zeros(self.queue, np.int32),
        )
        if batch is not None:
            length = len(batch.inputs)
            if length > self.queue:
                raise ValueError(f'a batch must have at most {self.queue} rows; got {length}.')
            jax.tree.map(lambda to, rows: to.__setitem__(slice(0, length), rows), filled, batch)
        return filled

    @staticmethod
    def _on_host(done: Finished, sums: Sums) -> tuple[Answers, Sums]:
        done, sums = jax.device_get((done, sums))
        rows = slice(0, int(done.count))
        names = [field.name for field in dataclasses.fields(Answers)]
        if done.change is None:
            done = done.replace(change=np.full(len(done.number), np.nan, np.float32))
        return Answers(**{name: getattr(done, name)[rows] for name in names}), sums
