"""The schedule of low- and high-level updates within one ACT step.

Pure functions over two update rules. Updates that must not carry gradient get inputs behind
``stop_gradient``, so that nothing of them is kept for the backward pass; they run under
``jax.lax.scan``.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hrm_jax import partitioning
from hrm_jax.config import ModelConfig
from hrm_jax.model import draws, running_mean
from hrm_jax.types import LatentState

# (params, state, injection or None, dropout key or None) -> state
Update = Callable[[Any, jax.Array, jax.Array | None, jax.Array | None], jax.Array]

_FEW = 8  # turns of a loop


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How often the two rules are applied, and through which of the updates gradients flow.

    Two-state models run ``H_cycles`` times: ``L_cycles`` low updates, each given the high state
    plus the input, then one high update, given the low state. With several low states the low
    update number i reads their sum and writes state i. One-state models (``latent.low`` is None)
    apply the low rule to their only state, given the input.

    Attributes:
      H_cycles, L_cycles: numbers of updates.
      gradient_window: ``one_step`` differentiates the last low and the last high update,
        ``last_cycle`` the whole last cycle, ``full`` all of it.
      closing_update: one-state models end a cycle with one update that sees no input.
      straight_through: the updates before the window count as the identity in the backward
        pass, so that trained initial states learn although the window does not reach them.
      unroll: writes the loops out.
      norm_eps: of the norm that running means read states through.
      rate, noise: an update moves the state by this share, and adds that much noise (EqR,
        models/eqr.py: the undamped part is the state without the injection).
    """

    H_cycles: int
    L_cycles: int
    gradient_window: str
    closing_update: bool = False
    straight_through: bool = False
    unroll: bool = False
    rate: float = 1.0
    noise: float = 0.0
    norm_eps: float = 1e-5

    @classmethod
    def of(cls, config: ModelConfig) -> 'Schedule':
        """The schedule of a model."""
        return cls(
            H_cycles=config.H_cycles,
            L_cycles=config.L_cycles,
            gradient_window=config.gradient_window,
            closing_update=config.closing_update,
            straight_through=config.initial_state == 'learned',
            unroll=config.unroll_cycles,
            rate=config.update_rate,
            noise=config.update_noise,
            norm_eps=config.rms_norm_eps,
        )


class Keys(NamedTuple):
    """Keys of what is drawn at the updates, or None."""

    dropout: jax.Array | None = None
    noise: jax.Array | None = None

    def fold(self, number: jax.Array | int) -> 'Keys':
        """The keys of one update."""
        return Keys(draws.fold(self.dropout, number), draws.fold(self.noise, number))


def _repeat(step: Callable, state: Any, times: int, unroll: bool) -> Any:
    """Applies ``step(state, i)`` for i in 0..times-1."""
    if times == 0:
        return state
    return jax.lax.scan(lambda s, i: (step(s, i), None), state, jnp.arange(times), unroll=unroll)[0]


def _is_faster_unrolled(times: int) -> bool:
    """Whether a differentiated loop of so few turns is written out.

    A loop copies what the backward pass needs into arrays of all turns, which shows on a CPU.
    """
    return partitioning.on_cpu() and times <= _FEW


def _straight_through(after: LatentState, before: LatentState) -> LatentState:
    """``after``, with the gradient of ``before`` (which is added as an exact 0)."""
    return jax.tree.map(lambda a, b: a + (b - jax.lax.stop_gradient(b)), after, before)


def unroll_cycles(
    low: Update,
    high: Update,
    params: tuple[Any, ...],
    latent: LatentState,
    x_BTD: jax.Array,
    schedule: Schedule,
    keys: Keys = Keys(),
    last_high: Update | None = None,
) -> LatentState:
    """Runs all cycles of one ACT step.

    Source: paper section 2, "approximate gradient"; models/hrm/hrm_act_v1.py, forward; TRM's
    models/recursive_reasoning/trm.py, trm_singlez.py, trm_hier6.py, transformers_baseline.py.

    Args:
      low, high: update rules.
      params: parameters of ``low`` and of ``high`` (the same object where they share); for states
        that are running means also a pair of rules, of the low and the high one.
      latent: state at the start of the ACT step.
      x_BTD: embedded input.
      schedule: numbers of updates and gradient window.
      keys: new ones are derived for every update.
      last_high: takes the place of ``high`` at the very last update, for who needs but a part of
        its result. The schedule must have the ``full`` gradient window.

    Returns:
      The state after the last update.
    """
    L_cycles, unroll = schedule.L_cycles, schedule.unroll
    one_state = latent.low is None

    def injection(latent: LatentState, x: jax.Array) -> jax.Array:
        return x if one_state else latent.high + x

    def moved(before, after, keys: Keys):
        """The state after an update that gives ``after``; position 0 alone where that is asked."""
        if schedule.rate == 1 and schedule.noise == 0:
            return after
        length = after.shape[1]
        # In float32, so that no factor is rounded to half precision.
        state = (1 - schedule.rate) * before[:, :length].astype(jnp.float32)
        state += schedule.rate * after.astype(jnp.float32)
        if schedule.noise > 0:
            state += schedule.noise * draws.normal(keys.noise, x_BTD.shape)[:, :length]
        return state.astype(after.dtype)

    def kept(params, level: str, held: tuple, new, keys: Keys) -> tuple:
        """State and weight of a level after an update that gives ``new``."""
        state, weight = held
        new = moved(state, new, keys)
        if weight is None:
            return new, None
        rule, length = params[2][('low', 'high').index(level)], new.shape[1]
        return running_mean.averaged(
            rule, schedule.norm_eps, state[:, :length], weight[:, :length], new
        )

    def get(latent: LatentState, level: str) -> tuple:
        weights = latent.weights
        return getattr(latent, level), None if weights is None else getattr(weights, level)

    def put(latent: LatentState, level: str, held: tuple) -> LatentState:
        state, weight = held
        changes: dict[str, Any] = {level: state}
        if latent.weights is not None:
            changes['weights'] = dataclasses.replace(latent.weights, **{level: weight})
        return dataclasses.replace(latent, **changes)

    # The state that the low rule updates.
    inner = 'high' if one_state else 'low'

    def low_update(params, held: tuple, injected, i, keys) -> tuple:
        keys, state = keys.fold(i), held[0]
        if state.ndim == x_BTD.ndim:
            new = low(params[0], state, injected, keys.dropout)
            return kept(params, inner, held, new, keys)
        new = low(params[0], state.sum(1), injected, keys.dropout)
        return state.at[:, i].set(moved(state[:, i], new, keys)), None

    def close(params, latent: LatentState, held: tuple, keys, high=high) -> LatentState:
        latent, keys = put(latent, inner, held), keys.fold(L_cycles)
        if one_state:
            if not schedule.closing_update:
                return latent
            inject = None
        else:
            inject = held[0] if held[0].ndim == x_BTD.ndim else held[0].sum(1)
        new = high(params[1], latent.high, inject, keys.dropout)
        return put(latent, 'high', kept(params, 'high', get(latent, 'high'), new, keys))

    def cycle(params, latent: LatentState, x, keys, high=high, unroll=unroll) -> LatentState:
        injected = injection(latent, x)
        held = _repeat(
            lambda held, i: low_update(params, held, injected, i, keys),
            get(latent, inner),
            L_cycles,
            unroll,
        )
        return close(params, latent, held, keys, high)

    def cycles(params, latent, x, times) -> LatentState:
        return _repeat(lambda z, c: cycle(params, z, x, keys.fold(c)), latent, times, unroll)

    if last_high is not None:
        latent = cycles(params, latent, x_BTD, schedule.H_cycles - 1)
        return cycle(params, latent, x_BTD, keys.fold(schedule.H_cycles - 1), last_high)
    if schedule.gradient_window == 'full':
        return cycles(params, latent, x_BTD, schedule.H_cycles)

    frozen_params, frozen_latent, frozen_x = jax.lax.stop_gradient((params, latent, x_BTD))
    before = latent
    latent = cycles(frozen_params, frozen_latent, frozen_x, schedule.H_cycles - 1)
    keys = keys.fold(schedule.H_cycles - 1)
    if schedule.gradient_window == 'last_cycle':
        if schedule.straight_through:
            latent = _straight_through(latent, before)
        unroll = unroll or _is_faster_unrolled(L_cycles)
        return cycle(params, latent, x_BTD, keys, unroll=unroll)
    if schedule.gradient_window != 'one_step':
        raise ValueError(f'no gradient window called {schedule.gradient_window!r}')

    injected = injection(latent, frozen_x)
    held = _repeat(
        lambda held, i: low_update(frozen_params, held, injected, i, keys),
        get(latent, inner),
        L_cycles - 1,
        unroll,
    )
    latent = put(latent, inner, held)
    if schedule.straight_through:
        latent = _straight_through(latent, before)
    injected = injection(latent, x_BTD)
    held = low_update(params, get(latent, inner), injected, L_cycles - 1, keys)
    return close(params, latent, held, keys)
