"""Candidate sets: eliminate, find conflicts, pin. Pure functions over rows.

The state of a row is the set of symbols that may still stand in each of its cells, bool [B, S, C].
A fresh state has all of them; what the question says is met with it at every step, so that a given
cell has its symbol alone. The same step moves the rows of training (pool.py) and the chains of
inference (inference/early_exit.py). Labels are unknown here, and nothing looks at the rules of the
task: that a state is solved is the model's own verdict.

Source: lattice deduction transformers, arXiv 2605.08605; santolucito/lattice-deduction-transformers
src/experiments/sudoku/dpll.py and aug.py.
"""

from collections.abc import Callable
import math

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.config import ModelConfig
from hrm_jax.model import draws
from hrm_jax.model.candidates import Readings
from hrm_jax.model.symbols import NO_SYMBOL
from hrm_jax.types import Outputs

# Log probability that the answer has for a symbol that was eliminated.
_ELIMINATED = -30.0
_BEYOND = 1e6  # every q_halt: q_continue is this, or this below 0 where a state is solved


def open_cells(config: ModelConfig, inputs_BS: jax.Array) -> jax.Array:
    """Which cells of a question are not given, bool [B, S]."""
    return inputs_BS == config.lattice.open_token


def one_hot(config: ModelConfig, tokens_BS: jax.Array) -> jax.Array:
    """Tokens as sets of one candidate, bool [B, S, C]; empty where a token is no symbol."""
    symbols = config.first_symbol + jnp.arange(config.num_symbols)
    return tokens_BS[..., None] == symbols


def meet(config: ModelConfig, left_BSC: jax.Array, inputs_BS: jax.Array) -> jax.Array:
    """Candidates that are left and agree with the question."""
    free = np.ones(config.num_symbols, bool)
    if config.lattice.open_candidates:
        free[:] = False
        free[np.array(config.lattice.open_candidates) - config.first_symbol] = True
    given_BSC = one_hot(config, inputs_BS)
    is_open = open_cells(config, inputs_BS)[..., None]
    return left_BSC & jnp.where(is_open, jnp.asarray(free), given_BSC)


class View(struct.PyTreeNode):
    """A symmetry for each row; what is seen through it is the same puzzle in another form.

    Attributes:
      symbols: int32 [B, C], the symbol that stands at each place of the new order; None: as it is.
      turn: int32 [B], of ``turns``; None: as it is.
    """

    symbols: jax.Array | None = None
    turn: jax.Array | None = None


def turns(side: int) -> np.ndarray:
    """The cells of a square board under its 8 symmetries, int32 [8, S].

    Row 2 k is the board after k quarter turns, row 2 k + 1 the same mirrored left to right.
    """
    board = np.arange(side * side, dtype=np.int32).reshape(side, side)
    turned = [np.rot90(board, k) for k in range(4)]
    return np.stack([one.reshape(-1) for t in turned for one in (t, np.fliplr(t))])


def draw_view(config: ModelConfig, key: jax.Array | None, rows: int) -> View:
    """Draws a view for each row: keys as in draws.py."""
    kind, own = config.lattice.views, draws.key_of('candidate_view', key)
    symbols = turn = None
    if 'digits' in kind:
        symbols = jnp.argsort(draws.uniform(draws.fold(own, 0), (rows, config.num_symbols)), axis=1)
    if 'board' in kind:
        turn = (8 * draws.uniform(draws.fold(own, 1), (rows,))).astype(jnp.int32)
    return View(symbols, turn)


def _moved(view: View, x: jax.Array, inverse: bool) -> jax.Array:
    """[..., B, S, C], or [..., B, S] of cells."""
    cells = x.ndim == 2
    x = x[..., None] if cells else x
    if view.turn is not None:
        table = turns(math.isqrt(x.shape[-2]))
        places_BS = jnp.asarray(np.argsort(table, axis=1) if inverse else table)[view.turn]
        x = jnp.take_along_axis(x, places_BS[..., None], axis=-2)
    if view.symbols is not None and not cells:
        order_BC = jnp.argsort(view.symbols, axis=1) if inverse else view.symbols
        x = jnp.take_along_axis(x, order_BC[:, None], axis=-1)
    return x[..., 0] if cells else x


def through(view: View, x: jax.Array) -> jax.Array:
    """Sees [B, S, C], or cells [B, S], through a view."""
    return _moved(view, x, inverse=False)


def back(view: View, x: jax.Array) -> jax.Array:
    """The inverse of ``through``."""
    return _moved(view, x, inverse=True)


def eliminate(
    config: ModelConfig, alive_BSC: jax.Array, open_BS: jax.Array, keep_BSC: jax.Array
) -> jax.Array:
    """Takes improbable candidates away; given cells keep theirs. Returns those that are left."""
    improbable = jax.nn.sigmoid(keep_BSC) < config.lattice.eliminate_below
    return alive_BSC & ~(improbable & open_BS[..., None])


class Verdict(struct.PyTreeNode):
    """What the model holds of states, bool [B] each.

    Attributes:
      complete: every cell has one candidate.
      conflict: a cell has none, or the conflict head is sure enough.
    """

    complete: jax.Array
    conflict: jax.Array

    @property
    def solved(self) -> jax.Array:
        return self.complete & ~self.conflict


def judge(config: ModelConfig, alive_BSC: jax.Array, conflict_B: jax.Array) -> Verdict:
    """Judges states after elimination, by the conflict logits of the states before it."""
    counts_BS = alive_BSC.sum(-1)
    seen_B = jax.nn.sigmoid(conflict_B) > config.lattice.conflict_above
    return Verdict((counts_BS == 1).all(-1), (counts_BS == 0).any(-1) | seen_B)


def draw_pin(
    config: ModelConfig, key: jax.Array | None, alive_BSC: jax.Array, choice_BSC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws an open cell of each row, all alike, and one of its candidates by their probability.

    Returns:
      int32 [B] cells, and int32 [B] candidates. Rows without an open cell: any.
    """
    rows, cells, size = alive_BSC.shape
    own = draws.key_of('pin', key)
    scores_BS = draws.uniform(draws.fold(own, 0), (rows, cells))
    cell_B = jnp.where(alive_BSC.sum(-1) > 1, scores_BS, -1.0).argmax(-1)

    def at_cell(x_BSC):
        return jnp.take_along_axis(x_BSC, cell_B[:, None, None], axis=1)[:, 0]

    # The largest of logits with Gumbel noise has the probability of a softmax.
    uniform_BC = draws.uniform(draws.fold(own, 1), (rows, size))
    smallest = jnp.finfo(jnp.float32).tiny
    noise_BC = -jnp.log(-jnp.log(jnp.maximum(uniform_BC, smallest)))
    logits_BC = at_cell(choice_BSC) / config.lattice.pin_temperature + noise_BC
    symbol_B = jnp.where(at_cell(alive_BSC), logits_BC, -jnp.inf).argmax(-1)
    return cell_B.astype(jnp.int32), symbol_B.astype(jnp.int32)


def pin(
    alive_BSC: jax.Array, rows_B: jax.Array, cell_B: jax.Array, symbol_B: jax.Array
) -> jax.Array:
    """Leaves one candidate in one cell of the rows that are asked for."""
    _, cells, size = alive_BSC.shape
    here_BS = rows_B[:, None] & (jnp.arange(cells) == cell_B[:, None])
    only_BC = jnp.arange(size) == symbol_B[:, None]
    return jnp.where(here_BS[..., None], only_BC[:, None], alive_BSC)


def _answer(config: ModelConfig, alive_BSC: jax.Array, choice_BSC: jax.Array) -> jax.Array:
    """Logits [B, S, V]: log probabilities of the candidates that are left."""
    masked_BSC = jnp.where(alive_BSC, choice_BSC, -jnp.inf)
    some_BS1 = alive_BSC.any(-1, keepdims=True)
    log_probs = jax.nn.log_softmax(jnp.where(some_BS1, masked_BSC, 0.0), axis=-1)
    log_probs = jnp.maximum(jnp.where(some_BS1, log_probs, _ELIMINATED), _ELIMINATED)
    missing = config.first_symbol
    return jnp.pad(log_probs, ((0, 0), (0, 0), (missing, 0)), constant_values=NO_SYMBOL)


def step(
    config: ModelConfig,
    read: Callable[[jax.Array], Readings],
    left_BSC: jax.Array,
    inputs_BS: jax.Array,
    key: jax.Array | None,
) -> tuple[jax.Array, Outputs]:
    """Reads every state through a view of its own, eliminates, and pins a cell of those in between.

    Rows in conflict keep what is left of them, or begin again (``lattice.restarts``). A pin that
    completes a board is judged at the next step.

    Args:
      config: architecture.
      read: from candidates to the readings of the last loop.
      left_BSC: bool, candidates that were left.
      inputs_BS: int32 token ids of the questions.
      key: of view and pin; see draws.py.

    Returns:
      The candidates that are left now, and the outputs: the answer by the choice head among them;
      q_halt, the logit that there is no conflict; q_continue, below q_halt where a row is solved
      and above it elsewhere; and conflict.
    """
    view = draw_view(config, key, len(inputs_BS))
    alive_BSC = through(view, meet(config, left_BSC, inputs_BS))
    open_BS = through(view, open_cells(config, inputs_BS))
    readings = read(alive_BSC)
    alive_BSC = eliminate(config, alive_BSC, open_BS, readings.keep)
    verdict = judge(config, alive_BSC, readings.conflict)
    cell_B, symbol_B = draw_pin(config, key, alive_BSC, readings.choice)
    between_B = ~(verdict.complete | verdict.conflict)
    pinned_BSC = pin(alive_BSC, between_B, cell_B, symbol_B)
    left_BSC = back(view, pinned_BSC)
    outputs = Outputs(
        logits=_answer(config, left_BSC, back(view, readings.choice)),
        q_halt=-readings.conflict,
        q_continue=jnp.where(verdict.solved, -_BEYOND, _BEYOND),
        conflict=verdict.conflict,
    )
    if config.lattice.restarts:
        left_BSC = left_BSC | verdict.conflict[:, None, None]
    return left_BSC, outputs
