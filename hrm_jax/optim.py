"""Optimizers: AdamATan2 or AdamW for the weights, row-sparse sign-SGD for the puzzle table.

All are optax transformations and reproduce the originals: adam-atan2 0.0.3 (the CUDA package
that HRM imports), adam-atan2-pytorch 0.4.1 (whose formula differs), torch's AdamW, and
sapientinc/HRM models/sparse_embedding.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import optax

from hrm_jax import muon
from hrm_jax.config import OptimizerConfig

Schedule = Callable[[Any], jax.Array]  # updates done, this one included -> learning rate


def warmup_cosine(
    base_lr: float, warmup_steps: int, total_steps: int, min_ratio: float
) -> Schedule:
    """Linear warm-up, then half a cosine down to ``base_lr * min_ratio``.

    Steps count from 1: the first update has ``base_lr / warmup_steps``. Source: pretrain.py,
    cosine_schedule_with_warmup_lr_lambda.
    """

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = step / max(1, warmup_steps)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        wave = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        falling = min_ratio + jnp.maximum(0.0, (1.0 - min_ratio) * wave)
        return base_lr * jnp.where(step < warmup_steps, rising, falling)

    return schedule


# atan(t) / t on [0, 1] as a quotient of polynomials in t squared, low powers first, fitted for the
# smallest relative error (2.0e-8 before rounding). The denominator begins with 1.
_ATAN_OVER = (0.99999998, 0.898396487, 0.137612875)
_ATAN_UNDER = (1.231727709, 0.348222117, 0.0123777725)


def _over_power_of_two(x: jax.Array) -> jax.Array:
    """1 over the largest power of two up to ``x``, float32 from 0 to 1e38."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    exponent = bits & jnp.int32(0x7F800000)
    return jax.lax.bitcast_convert_type(jnp.int32(254 << 23) - exponent, jnp.float32)


def atan2_of_square(y: jax.Array, x_squared: jax.Array) -> jax.Array:
    """``arctan2(y, sqrt(x_squared))``, float32, for sizes from 1e-19 to 1e19; 0 where both are 0.

    One division and one root at the very end: XLA for CPUs makes a pass over memory of its own
    for either whose result is used twice, and this is most of what an update costs.
    """
    # A square may have overflowed.
    y_squared, x_squared = jnp.minimum(y * y, 1e38), jnp.minimum(x_squared, 1e38)
    steep = y_squared > x_squared
    low = jnp.minimum(y_squared, x_squared)
    high = jnp.maximum(y_squared, x_squared)
    scale = _over_power_of_two(high)  # seventh powers follow
    low, high = low * scale, high * scale
    c0, c1, c2 = _ATAN_OVER
    over = high * ((c2 * low + c1 * high) * low + c0 * high * high)
    c1, c2, c3 = _ATAN_UNDER
    under = ((c3 * low + c2 * high) * low + c1 * high * high) * low + high * high * high
    under_squared = jnp.where(high > 0, high * under * under, 1.0)
    angle = jnp.sqrt(low * over * over / under_squared)
    angle = jnp.where(steep, jnp.float32(jnp.pi / 2) - angle, angle)
    return jnp.where(y < 0, -angle, angle)


class AdamATan2State(NamedTuple):
    """Updates done (int32 []) and the two moments of the scaled gradients, float32."""

    count: jax.Array
    mu: Any
    nu: Any


# The squares of gradients below 1e-19 are flushed to 0 in float32, and atan2(m, 0) would then
# take the largest step. atan2 does not see a common factor, so both moments are kept of
# gradients times 2^32 (gradients may still reach 4e9 before a square overflows).
GRADIENT_SCALE = 2.0**32


def adam_atan2(
    learning_rate: Schedule,
    b1: float,
    b2: float,
    weight_decay: float,
    pytorch_package: bool = False,
) -> optax.GradientTransformation:
    """Adam with ``atan2`` in place of the division: no epsilon, invariant to gradient scale.

    p <- p (1 - lr wd) - lr / (1 - b1^t) * atan2(m, sqrt(v / (1 - b2^t))), decay on every
    parameter. Source: adam-atan2 0.0.3; arXiv 2407.05872. With ``pytorch_package`` the step is
    lr * 1.27 * atan2(m / (1 - b1^t), sqrt(v / (1 - b2^t))). Source: adam-atan2-pytorch 0.4.1.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamATan2State(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError('adam_atan2 decays the weights: pass params to update().')
        count = cast(jax.Array, optax.safe_increment(state.count))
        t = count.astype(jnp.float32)
        lr = learning_rate(count)
        # The first correction scales the step in one package and the moment in the other.
        correction = 1 / (1 - b1**t)
        step_size = lr * 1.27 if pytorch_package else lr * correction
        moment_scale = correction if pytorch_package else None
        square_scale = 1 / (1 - b2**t)
        scaled = jax.tree.map(lambda g: g * GRADIENT_SCALE, updates)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, scaled)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, scaled)

        def change(p, m, v):
            m = m if moment_scale is None else m * moment_scale
            return -lr * weight_decay * p - step_size * atan2_of_square(m, v * square_scale)

        return jax.tree.map(change, params, mu, nu), AdamATan2State(count, mu, nu)

    return optax.GradientTransformation(init, update)


class RowGradients(NamedTuple):
    """Gradients of single rows of a table: ids int32 [B] (may repeat), rows float32 [B, E]."""

    ids: jax.Array
    rows: jax.Array


class SignSgdState(NamedTuple):
    """Updates done, int32 []."""

    count: jax.Array


def row_sparse_sign_sgd(
    learning_rate: Schedule, weight_decay: float
) -> optax.GradientTransformation:
    """Sign-SGD that touches only the rows present in the batch, weight decay included.

    Gradients of equal ids are added; then w <- w (1 - lr wd) - lr sign(sum). ``update`` takes
    ``RowGradients`` and the table, and returns ``RowGradients`` whose rows are the *changes*,
    the same for equal ids; ``apply_row_updates`` writes them. No dense gradient of the table
    ever exists.
    """

    def init(params):
        del params
        return SignSgdState(jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError('row_sparse_sign_sgd needs the table: pass params to update().')
        chex.assert_equal_shape_prefix([updates.ids, updates.rows], 1)
        count = cast(jax.Array, optax.safe_increment(state.count))
        lr = learning_rate(count)
        rows = updates.ids.shape[0]
        _, slot = jnp.unique(updates.ids, size=rows, return_inverse=True)
        summed = jax.ops.segment_sum(updates.rows, slot, num_segments=rows)[slot]
        weights = jnp.take(params, updates.ids, axis=0)
        changes = -lr * weight_decay * weights - lr * jnp.sign(summed)
        return RowGradients(updates.ids, changes), SignSgdState(count)

    return optax.GradientTransformation(init, update)


def apply_row_updates(table: jax.Array, updates: RowGradients) -> jax.Array:
    """Returns the table with the changed rows written; equal ids carry equal changes."""
    rows = jnp.take(table, updates.ids, axis=0) + updates.rows
    return table.at[updates.ids].set(rows)


def update_average(
    average: Any, params: Any, decay: float, step: jax.Array | None = None, start: int = 0
) -> Any:
    """Moving average of the weights after an update: decay * average + (1 - decay) * params.

    No bias correction: the average starts as a copy. Source: TinyRecursiveModels models/ema.py.

    Args:
      average, params: two trees of one structure.
      decay: share of the average that stays.
      step: updates done, this one included; needed where ``start`` is above 0.
      start: up to this update the average is a copy of the weights (SIC).
    """
    moved = optax.incremental_update(params, average, 1.0 - decay)
    if start == 0:
        return moved
    if step is None:
        raise ValueError('an average that starts later needs the number of the update.')
    return jax.tree.map(lambda new, copy: jnp.where(step <= start, copy, new), moved, params)


def schedules(config: OptimizerConfig, total_steps: int) -> dict[str, Schedule]:
    """Learning rates by name: one curve scales all of them.

    ``lr`` of the weights, ``puzzle_emb_lr`` of the puzzle table, ``muon_lr`` of the matrices.
    """
    rates = {'lr': config.lr, 'puzzle_emb_lr': config.puzzle_emb_lr}
    if config.name == 'muon':
        rates['muon_lr'] = config.muon_lr

    def schedule(base: float) -> Schedule:
        curve = warmup_cosine(base, config.lr_warmup_steps, total_steps, config.lr_min_ratio)
        return curve if config.schedule_start == 1 else lambda step: curve(step - 1)

    return {name: schedule(base) for name, base in rates.items()}


def _muon_and_adamw(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    rates = schedules(config, total_steps)
    matrices = muon.muon(
        rates['muon_lr'],
        momentum=config.muon_momentum,
        weight_decay=config.muon_weight_decay,
        steps=config.muon_steps,
        nesterov=config.muon_nesterov,
        dtype=config.muon_dtype,
        scale=config.muon_scale,
    )
    rest = optax.adamw(
        lambda count: rates['lr'](count + 1),
        config.beta1,
        config.beta2,
        config.eps,
        weight_decay=config.weight_decay,
    )
    return optax.partition(
        {muon.MATRIX: matrices, muon.OTHER: rest},
        lambda params: muon.groups(params, config.muon_skip),
    )


def weight_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Optimizer of ``params``: optional clipping by the global norm, then ``config.name``.

    With ``freeze_weights`` nothing moves, weight decay included.
    """
    if config.freeze_weights:
        return optax.chain(optax.set_to_zero())
    schedule = schedules(config, total_steps)['lr']
    b1, b2, weight_decay = config.beta1, config.beta2, config.weight_decay
    match config.name:
        case 'adam_atan2' | 'adam_atan2_pytorch':
            pytorch_package = config.name == 'adam_atan2_pytorch'
            update = adam_atan2(schedule, b1, b2, weight_decay, pytorch_package)
        case 'adamw':
            # optax counts updates from 0, the schedule from 1.
            update = optax.adamw(
                lambda count: schedule(count + 1), b1, b2, config.eps, weight_decay=weight_decay
            )
        case 'muon':
            update = _muon_and_adamw(config, total_steps)
        case _:
            raise ValueError(f'no optimizer called {config.name!r}')
    if config.grad_clip_norm > 0:
        return optax.chain(optax.clip_by_global_norm(config.grad_clip_norm), update)
    return optax.chain(update)


def puzzle_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Optimizer of the puzzle table."""
    schedule = schedules(config, total_steps)['puzzle_emb_lr']
    return row_sparse_sign_sgd(schedule, config.puzzle_emb_weight_decay)
