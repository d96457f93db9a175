"""The pytrees that flow through the program, and the legend of dimensions.

Shapes live in names: ``logits_BSV`` has the axes batch, cell and vocabulary.

====== =======================================================================
letter axis
====== =======================================================================
B      batch rows
S      cells of a puzzle (``seq_len``)
P      slots of the puzzle prefix
T      sequence seen by the blocks: prefix, cells, added slots
C      candidates of a cell, in models with candidate sets (model/lattice.py)
D      hidden size
N      attention heads
K      size of one head
F      inner size of the gated unit
V      vocabulary
E      width of a row of the puzzle table (``puzzle_emb_ndim``)
G      symbols, in models with a symbol axis (model/symbols.py)
====== =======================================================================

The two levels are spelt ``high`` and ``low`` (H and L in the paper), because single
letters would collide with the axes.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

# Logical axis names, mapped to mesh axes in partitioning.py and nowhere else.
BATCH = 'batch'
CELLS = 'cells'
EMBED = 'embed'
HEADS = 'heads'
HEAD_DIM = 'head_dim'
QKV = 'qkv'
MLP = 'mlp'
CHANNELS = 'channels'  # of a recurrence, each of which runs by itself
GATE_UP = 'gate_up'
VOCAB = 'vocab'
PUZZLES = 'puzzles'
SYMBOLS = 'symbols'

# Label of a cell that is neither learned nor scored (as in torch's cross entropy).
IGNORE_LABEL_ID = -100


# What the fields of a pytree hold where it is not always jax arrays: numpy arrays on the host,
# ShapeDtypeStructs while nothing is made yet, shardings (also one in place of a whole subtree) in
# the description of a jitted function. The docstrings state the shapes.
Leaf = Any


class Batch(struct.PyTreeNode):
    """One batch of puzzles.

    Attributes:
      inputs: int32 [B, S], token ids of the question.
      labels: int32 [B, S], token ids of the answer; ``IGNORE_LABEL_ID`` where a cell is
        not scored. Rows that only pad an evaluation batch have no scored cell at all.
      puzzle_identifiers: int32 [B], rows of the puzzle table.
    """

    inputs: Leaf
    labels: Leaf
    puzzle_identifiers: Leaf


class Weights(struct.PyTreeNode):
    """Weights of a model: all of it but its configuration.

    Attributes:
      params: what the optimizer moves (float32), or their moving average.
      constants: fixed initial states of the levels, never trained; with composed embeddings also
        the rows of the table that each puzzle identifier is made of.
      puzzle_table: float32 [num_puzzle_identifiers, E] (composed embeddings: tasks and factors), or
        None without a puzzle prefix. Not an optax parameter: only the rows of a batch ever have a
        gradient.
    """

    params: Any
    constants: Any
    puzzle_table: Leaf | None

    def averaged(self, ema: Any) -> 'Weights':
        """Returns these weights with the moving average ``ema`` as params; None: as they are."""
        return self if ema is None else self.replace(params=ema)


class NoisyAnswer(struct.PyTreeNode):
    """The answer that a looped flow denoises from step to step (model/flows.py).

    Attributes:
      x: float32 [B, S, V]; training: the noise of the trajectory; inference: the sample so far.
      times: float32 [B, points], the time of every step, rising.
      step: int32 [B], steps done.
      predicted: float32 [B, S, V], probabilities of the step before, for pseudotargets; None at
        inference.
    """

    x: jax.Array
    times: jax.Array
    step: jax.Array
    predicted: jax.Array | None = None


class MeanWeights(struct.PyTreeNode):
    """Logs of the sums of weights in states that are running means (model/running_mean.py).

    Attributes:
      high: float32 [B, T].
      low: float32 [B, T]; None in models with one state.
    """

    high: jax.Array
    low: jax.Array | None


class LatentState(struct.PyTreeNode):
    """Recurrent state of the two levels, float of ``forward_dtype``.

    Attributes:
      high: [B, T, D], the slow level (``z_H``); SRU: its cells, float32 [B, layers, D].
      low: [B, T, D], the fast level (``z_L``); with several low states [B, states, T, D];
        SRU: its cells; None in models with one state.
      answer: of looped flows; None in other models.
      alive: with several chains (model/chains.py): bool [B, K], those still in the running; every
        other array of the state then has the axis K after B.
      weights: of states that are running means; None in other models.

    With a symbol axis the states are [B, G, T, D]. With candidate sets ``high`` is bool [B, S, C]:
    the candidates that are left.
    """

    high: jax.Array
    low: jax.Array | None
    answer: NoisyAnswer | None = None
    alive: jax.Array | None = None
    weights: MeanWeights | None = None


class Outputs(struct.PyTreeNode):
    """Predictions of one ACT step.

    Attributes:
      logits: [B, S, V] in the compute dtype.
      q_halt: float32 [B], logit of "stop now".
      q_continue: float32 [B], logit of "continue".
      conflict: bool [B], states that contradict themselves; None without candidate sets.
    """

    logits: jax.Array
    q_halt: jax.Array
    q_continue: jax.Array
    conflict: jax.Array | None = None


class Carry(struct.PyTreeNode):
    """ACT state that lives across train steps.

    Attributes:
      latent: state of the two levels.
      steps: int32 [B], ACT steps already spent on the row's puzzle.
      halted: bool [B], rows that take a new puzzle at the next step.
      batch: the puzzles being worked on (not the incoming ones).
    """

    latent: LatentState
    steps: jax.Array
    halted: jax.Array
    batch: Batch


class Sums(struct.PyTreeNode):
    """Numerators of every metric of one ACT step, summed over the global batch, float32 [].

    ``count`` rows halted at this step and have at least one scored cell; the accuracies
    and ``steps`` sum over those. The losses sum over all rows of the batch. Division
    happens once, in metrics.py.
    """

    count: jax.Array
    accuracy: jax.Array
    exact_accuracy: jax.Array
    q_halt_accuracy: jax.Array
    steps: jax.Array
    lm_loss: jax.Array
    q_halt_loss: jax.Array
    q_continue_loss: jax.Array
    q_halt_mean: jax.Array
    q_continue_mean: jax.Array
    rows: jax.Array

    @classmethod
    def zeros(cls) -> 'Sums':
        """Zero-initialized sums."""
        return cls(**{name: jnp.float32(0) for name in cls.__dataclass_fields__})

    def __add__(self, other: 'Sums') -> 'Sums':
        return jax.tree.map(jnp.add, self, other)


class TrainState(struct.PyTreeNode):
    """Everything that a train step reads and writes.

    Attributes:
      step: int32 [], train steps done.
      weights: params, constants and puzzle table.
      opt_state: states of the optimizers of ``params`` and of the puzzle table.
      ema: moving average of ``weights.params``, or None when it is off.
      carry: ACT state of the training rows.
      rng: typed PRNG key; the key of a step is ``fold_in(rng, step)``.
    """

    step: jax.Array
    weights: Weights
    opt_state: Any
    ema: Any
    carry: Carry
    rng: jax.Array
