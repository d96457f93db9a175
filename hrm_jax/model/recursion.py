"""The schedule of low- and high-level updates within one ACT step.

Pure functions over two update rules ``(params, state, injection) -> state``. Updates that
must not carry gradient get inputs behind ``stop_gradient``, so that nothing of them is kept
for the backward pass; they run under ``jax.lax.scan``.
"""

from collections.abc import Callable
from typing import Any

import jax

from hrm_jax.types import LatentState

Update = Callable[[Any, jax.Array, jax.Array], jax.Array]


def _repeat(step: Callable, state: Any, times: int, unroll: bool) -> Any:
    if times == 0:
        return state
    return jax.lax.scan(lambda s, _: (step(s), None), state, length=times, unroll=unroll)[0]


def unroll_cycles(
    low: Update,
    high: Update,
    params: tuple[Any, Any],
    latent: LatentState,
    x_BTD: jax.Array,
    *,
    H_cycles: int,
    L_cycles: int,
    gradient_window: str,
    unroll: bool = False,
) -> LatentState:
    """Runs ``H_cycles`` times: ``L_cycles`` low updates, then one high update.

    Source: paper section 2, "approximate gradient"; models/hrm/hrm_act_v1.py, forward.

    Args:
      low, high: update rules; ``low`` is given ``high state + x``, ``high`` the low state.
      params: parameters of ``low`` and of ``high`` (the same object where they share).
      latent: state at the start of the ACT step.
      x_BTD: embedded input.
      H_cycles, L_cycles: numbers of updates.
      gradient_window: ``one_step`` differentiates the last low and the last high update,
        ``last_cycle`` the whole last cycle, ``full`` all of it.
      unroll: writes the loops out.

    Returns:
      The state after the last update.
    """

    def cycle(params, latent: LatentState, x: jax.Array) -> LatentState:
        low_params, high_params = params
        injection = latent.high + x
        low_state = _repeat(lambda z: low(low_params, z, injection), latent.low, L_cycles, unroll)
        return LatentState(high=high(high_params, latent.high, low_state), low=low_state)

    if gradient_window == 'full':
        return _repeat(lambda z: cycle(params, z, x_BTD), latent, H_cycles, unroll)

    frozen_params, frozen_latent, frozen_x = jax.lax.stop_gradient((params, latent, x_BTD))
    latent = _repeat(
        lambda z: cycle(frozen_params, z, frozen_x), frozen_latent, H_cycles - 1, unroll
    )
    if gradient_window == 'last_cycle':
        return cycle(params, latent, x_BTD)

    injection = latent.high + frozen_x
    low_state = _repeat(
        lambda z: low(frozen_params[0], z, injection), latent.low, L_cycles - 1, unroll
    )
    low_state = low(params[0], low_state, latent.high + x_BTD)
    return LatentState(high=high(params[1], latent.high, low_state), low=low_state)
