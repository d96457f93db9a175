"""Looped flows: every ACT step denoises an answer, given the puzzle, the state and a time.

Source: arXiv 2609.11801, read from its text (no original code is public). What the text leaves
open is our reading: the tokens of the question are embedded beside the noisy answer, whose
projection is scaled with them; the time reaches every position, the puzzle prefix included; the
sampler leaves given cells as they are; pseudotargets are drawn for each row and step.

A trajectory has one noise x0 ~ N(0, 1 / V) and rising times. In training a step at time t sees
(1 - t) x0 + t y, with y the answer or, as a pseudotarget, the probabilities of the step before. At
inference the sampler steps on an even grid: it goes a little back and adds noise (``flow_noise``
above 0), and moves towards the probabilities that the step predicts.

Not here: ARC's form, in which the question goes through a projection of its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hrm_jax import losses
from hrm_jax.config import ModelConfig
from hrm_jax.model import draws
from hrm_jax.types import IGNORE_LABEL_ID, NoisyAnswer


class Point(NamedTuple):
    """What one step denoises.

    Attributes:
      x: float32 [B, S, V], the noisy answer.
      time: float32 [B], 0 where it is noise alone, 1 where it is the answer.
    """

    x: jax.Array
    time: jax.Array


def _points(config: ModelConfig) -> int:
    return config.flow_steps + 1 if config.flow_steps else config.flow_draws


def empty(config: ModelConfig, rows: int) -> NoisyAnswer:
    """Zeros, for rows that take a puzzle at their first step."""
    x = jnp.zeros((rows, config.seq_len, config.vocab_size), jnp.float32)
    return NoisyAnswer(
        x=x,
        times=jnp.zeros((rows, _points(config)), jnp.float32),
        step=jnp.zeros(rows, jnp.int32),
        predicted=None if config.flow_steps else x,
    )


def initial(config: ModelConfig, rows: int, key: jax.Array | None) -> NoisyAnswer:
    """Noise and times of trajectories that begin.

    Args:
      config: architecture; with ``flow_steps`` the times are an even grid, else they are drawn.
      rows: how many.
      key: one, or one for each row.
    """
    start = empty(config, rows)
    noise = draws.normal(draws.key_of('flow_start', key), start.x.shape)
    if config.flow_steps:
        times = jnp.arange(_points(config), dtype=jnp.float32) / config.flow_steps
        times = jnp.broadcast_to(times, start.times.shape)
    else:
        times = draws.uniform(draws.key_of('flow_times', key), start.times.shape)
        if config.flow_times == 'random_start':
            first, rest = times[:, :1], times[:, 1:]
            times = jnp.concatenate([first, jnp.sort(first + (1 - first) * rest, axis=1)], axis=1)
        else:
            times = jnp.sort(times, axis=1)
    return start.replace(x=_sigma(config) * noise, times=times)


def _sigma(config: ModelConfig) -> float:
    return config.vocab_size**-0.5


def _time(answer: NoisyAnswer, later: int = 0) -> jax.Array:
    # Steps after the last one repeat it.
    place = jnp.minimum(answer.step, max(answer.times.shape[1] - 2, 0)) + later
    return jnp.take_along_axis(answer.times, place[:, None], axis=1)[:, 0]


def here(answer: NoisyAnswer) -> Point:
    """The answer as it is, at the time of its next step."""
    return Point(answer.x, _time(answer))


def truth(labels_BS: jax.Array, size: int) -> jax.Array:
    """The answer as probabilities, float32 [B, S, V]; cells without a label count as padding."""
    return jax.nn.one_hot(jnp.where(labels_BS == IGNORE_LABEL_ID, 0, labels_BS), size)


def _given(config: ModelConfig, inputs_BS: jax.Array) -> jax.Array:
    known = config.flow_open_token >= 0
    return (inputs_BS != config.flow_open_token) if known else jnp.zeros_like(inputs_BS, bool)


def _fixed(config: ModelConfig, inputs_BS: jax.Array, x_BSV: jax.Array) -> jax.Array:
    """``x_BSV`` with the given cells in place."""
    own = jax.nn.one_hot(inputs_BS, config.vocab_size)
    return jnp.where(_given(config, inputs_BS)[..., None], own, x_BSV)


def interpolant(
    config: ModelConfig,
    answer: NoisyAnswer,
    inputs_BS: jax.Array,
    labels_BS: jax.Array,
    key: jax.Array | None,
    train_step: jax.Array | int,
) -> Point:
    """What a training step denoises.

    Args:
      config: architecture.
      answer: the trajectory.
      inputs_BS, labels_BS: int32 token ids; cells without a label count as padding.
      key: of the choice between truth and pseudotarget.
      train_step: train steps done, for the ramp of that choice.
    """
    target = truth(labels_BS, config.vocab_size)
    if config.flow_pseudotarget_steps:
        assert answer.predicted is not None  # of every trajectory in training
        drawn_B = draws.uniform(draws.key_of('pseudotarget', key), answer.step.shape)
        follows_B = (drawn_B < train_step / config.flow_pseudotarget_steps) & (answer.step > 0)
        target = jnp.where(follows_B[:, None, None], answer.predicted, target)
    # The last time drawn may be a step's own: nothing comes after it in training.
    time_B = jnp.take_along_axis(answer.times, answer.step[:, None], axis=1)[:, 0]
    share = time_B[:, None, None]
    return Point(_fixed(config, inputs_BS, (1 - share) * answer.x + share * target), time_B)


def sampler_point(
    config: ModelConfig, answer: NoisyAnswer, inputs_BS: jax.Array, key: jax.Array | None
) -> Point:
    """What a step of the sampler denoises: the sample, moved back and noised by ``flow_noise``."""
    time_B = _time(answer)
    x = answer.x
    if config.flow_noise > 0:
        back = jnp.clip(1 - config.flow_noise * (_time(answer, 1) - time_B), 0, 1)
        time_B = back * time_B
        std = jnp.sqrt(jnp.maximum((1 - time_B) ** 2 - (back - time_B) ** 2, 0))
        noise = _sigma(config) * draws.normal(draws.key_of('flow_noise', key), x.shape)
        x = back[:, None, None] * x + std[:, None, None] * noise
    return Point(_fixed(config, inputs_BS, x), time_B)


def moved(
    config: ModelConfig, answer: NoisyAnswer, point: Point, inputs_BS: jax.Array, logits_BSV
) -> NoisyAnswer:
    """The answer after a step that predicted ``logits_BSV`` from ``point``."""
    predicted = losses.stablemax(logits_BSV)
    if not config.flow_steps:
        return answer.replace(predicted=predicted, step=answer.step + 1)
    share_B = (_time(answer, 1) - point.time) / (1 - point.time)
    x = point.x + share_B[:, None, None] * (predicted - point.x)
    return answer.replace(x=_fixed(config, inputs_BS, x), step=answer.step + 1)


def with_given(config: ModelConfig, inputs_BS: jax.Array, logits_BSV: jax.Array) -> jax.Array:
    """Logits of the answer: the sampler's last move ends at the prediction, given cells aside."""
    if config.flow_open_token < 0:
        return logits_BSV
    top = logits_BSV.max(-1, keepdims=True) + 1
    own = jax.nn.one_hot(inputs_BS, config.vocab_size, dtype=bool)
    chosen = own & _given(config, inputs_BS)[..., None]
    return jnp.where(chosen, top, logits_BSV).astype(logits_BSV.dtype)
