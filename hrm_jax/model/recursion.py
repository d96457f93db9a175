"""The schedule of low- and high-level updates within one ACT step.

Pure functions over two update rules. Updates that must not carry gradient get inputs behind
``stop_gradient``, so that nothing of them is kept for the backward pass; they run under
``jax.lax.scan``.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax.model import draws
from hrm_jax.types import LatentState

# (params, state, injection or None, dropout key or None) -> state
Update = Callable[[Any, jax.Array, jax.Array | None, jax.Array | None], jax.Array]


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
    """

    H_cycles: int
    L_cycles: int
    gradient_window: str
    closing_update: bool = False
    straight_through: bool = False
    unroll: bool = False


def _repeat(step: Callable, state: Any, times: int, unroll: bool) -> Any:
    """Applies ``step(state, i)`` for i in 0..times-1."""
    if times == 0:
        return state
    return jax.lax.scan(lambda s, i: (step(s, i), None), state, jnp.arange(times), unroll=unroll)[0]


def _straight_through(after: LatentState, before: LatentState) -> LatentState:
    """``after``, with the gradient of ``before`` (which is added as an exact 0)."""
    return jax.tree.map(lambda a, b: a + (b - jax.lax.stop_gradient(b)), after, before)


def unroll_cycles(
    low: Update,
    high: Update,
    params: tuple[Any, Any],
    latent: LatentState,
    x_BTD: jax.Array,
    schedule: Schedule,
    key: jax.Array | None = None,
    last_high: Update | None = None,
) -> LatentState:
    """Runs all cycles of one ACT step.

    Source: paper section 2, "approximate gradient"; models/hrm/hrm_act_v1.py, forward; TRM's
    models/recursive_reasoning/trm.py, trm_singlez.py, trm_hier6.py, transformers_baseline.py.

    Args:
      low, high: update rules.
      params: parameters of ``low`` and of ``high`` (the same object where they share).
      latent: state at the start of the ACT step.
      x_BTD: embedded input.
      schedule: numbers of updates and gradient window.
      key: for dropout, a new one is derived for every update; None: no dropout.
      last_high: takes the place of ``high`` at the very last update, for who needs but a part of
        its result. The schedule must have the ``full`` gradient window.

    Returns:
      The state after the last update.
    """
    L_cycles, unroll = schedule.L_cycles, schedule.unroll
    one_state = latent.low is None

    def injection(latent: LatentState, x: jax.Array) -> jax.Array:
        return x if one_state else latent.high + x

    def low_update(low_params, state, injected, i, key):
        key = draws.fold(key, i)
        if state.ndim == x_BTD.ndim:
            return low(low_params, state, injected, key)
        return state.at[:, i].set(low(low_params, state.sum(1), injected, key))

    def close(params, latent: LatentState, low_state, key, high=high) -> LatentState:
        key = draws.fold(key, L_cycles)
        if one_state:
            if schedule.closing_update:
                low_state = high(params[1], low_state, None, key)
            return LatentState(high=low_state, low=None)
        told = low_state if low_state.ndim == x_BTD.ndim else low_state.sum(1)
        return LatentState(high=high(params[1], latent.high, told, key), low=low_state)

    def start(latent: LatentState) -> jax.Array:
        return latent.high if latent.low is None else latent.low

    def cycle(params, latent: LatentState, x, key, high=high) -> LatentState:
        injected = injection(latent, x)
        low_state = _repeat(
            lambda z, i: low_update(params[0], z, injected, i, key), start(latent), L_cycles, unroll
        )
        return close(params, latent, low_state, key, high)

    def cycles(params, latent, x, times) -> LatentState:
        return _repeat(lambda z, c: cycle(params, z, x, draws.fold(key, c)), latent, times, unroll)

    if last_high is not None:
        latent = cycles(params, latent, x_BTD, schedule.H_cycles - 1)
        return cycle(params, latent, x_BTD, draws.fold(key, schedule.H_cycles - 1), last_high)
    if schedule.gradient_window == 'full':
        return cycles(params, latent, x_BTD, schedule.H_cycles)

    frozen_params, frozen_latent, frozen_x = jax.lax.stop_gradient((params, latent, x_BTD))
    before = latent
    latent = cycles(frozen_params, frozen_latent, frozen_x, schedule.H_cycles - 1)
    key = draws.fold(key, schedule.H_cycles - 1)
    if schedule.gradient_window == 'last_cycle':
        if schedule.straight_through:
            latent = _straight_through(latent, before)
        return cycle(params, latent, x_BTD, key)
    if schedule.gradient_window != 'one_step':
        raise ValueError(f'no gradient window called {schedule.gradient_window!r}')

    injected = injection(latent, frozen_x)
    low_state = _repeat(
        lambda z, i: low_update(frozen_params[0], z, injected, i, key),
        start(latent),
        L_cycles - 1,
        unroll,
    )
    latent = (
        LatentState(high=low_state, low=None)
        if one_state
        else dataclasses.replace(latent, low=low_state)
    )
    if schedule.straight_through:
        latent = _straight_through(latent, before)
    low_state = low_update(params[0], start(latent), injection(latent, x_BTD), L_cycles - 1, key)
    return close(params, latent, low_state, key)
