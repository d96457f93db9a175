"""A state that is a weighted mean of what its updates gave, in place of the last one.

Source: our reading of InfiLoop (arXiv 2610.11570), of which only a README and an abstract could be
read: per token N <- b N + e^s z, D <- b D + e^s, and N / D takes the place of z, with
s = q . rms(z) for a learned vector q, and b below 1, fixed or learned. Open there, and chosen here:
the mean is taken at every update, of either level, each with a q (and b) of its own; a puzzle
begins with N = D = 0, so that its first update counts alone; q begins at 0, where all updates weigh
the same.

N and D overflow or vanish where s is large. Kept are the mean itself, which is the state, and log D
in float32: the new mean is a convex combination of the old one and z, whatever the number of
updates.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import types
from hrm_jax.config import ModelConfig
from hrm_jax.model import layers
from hrm_jax.types import MeanWeights

# log of 0, finite so that differences of it are numbers.
NOTHING = -1e30


class Rule(NamedTuple):
    """What the weights depend on.

    Attributes:
      query: float32 [D].
      log_decay: float32 [], the log of b.
    """

    query: jax.Array
    log_decay: jax.Array


class RunningMean(nn.Module):
    """The parameters of one level's mean."""

    config: ModelConfig

    def setup(self):
        config = self.config
        zeros = nn.initializers.zeros_init()
        self.query = layers.param(self, 'query', zeros, (config.hidden_size,), (types.EMBED,))
        if config.learned_mean_decay:
            b = config.mean_decay
            start = nn.initializers.constant(jnp.log(b / (1 - b)))
            self.decay = layers.param(self, 'decay', start, (), ())

    def __call__(self) -> Rule:
        config = self.config
        if config.learned_mean_decay:
            return Rule(self.query, jax.nn.log_sigmoid(self.decay))
        fixed = jnp.log(config.mean_decay) if config.mean_decay > 0 else NOTHING
        return Rule(self.query, jnp.float32(fixed))


def empty(config: ModelConfig, rows: int) -> MeanWeights:
    """Weights of states that no update has reached."""
    nothing = jnp.full((rows, config.total_len), NOTHING, jnp.float32)
    return MeanWeights(high=nothing, low=None if config.levels == 'single' else nothing)


def averaged(
    rule: Rule, eps: float, before: jax.Array, weight: jax.Array, new: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean and its weight after an update.

    Args:
      rule: of the level.
      eps: of the norm.
      before: [B, T, D], the mean so far.
      weight: float32 [B, T], log of the sum of the weights in it.
      new: [B, T, D], what the update gave.

    Returns:
      The new mean in the dtype of ``new`` and its weight.
    """
    new32 = new.astype(jnp.float32)
    score = jnp.einsum('btd,d->bt', layers.rms_norm(new32, eps), rule.query, precision='highest')
    kept = rule.log_decay + weight
    total = jnp.logaddexp(kept, score)
    old, fresh = jnp.exp(kept - total)[..., None], jnp.exp(score - total)[..., None]
    return (old * before.astype(jnp.float32) + fresh * new32).astype(new.dtype), total
