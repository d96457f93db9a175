"""Checks of the optimizers and of the learning-rate schedule."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity_checks.registry import Fixture, Report, check
from hrm_jax import optim


@check('optim')
def optimizers(fixture: Fixture, report: Report) -> None:
    """AdamATan2, sign-SGD of the puzzle table, learning-rate schedule."""
    arrays = fixture.arrays
    if 'adam_atan2/lrs' in arrays:
        _check_adam_atan2(fixture, report)
    if 'sign_sgd/weights0' in arrays:
        _check_sign_sgd(fixture, report)
    if 'schedule/table' in arrays:
        got = [
            optim.warmup_cosine(base, int(warmup), int(total), ratio)(step)
            for step, base, warmup, total, ratio, _ in arrays['schedule/table']
        ]
        want = arrays['schedule/table'][:, 5]
        bases = arrays['schedule/table'][:, 1]
        report.below('schedule (of base)', np.max(np.abs(np.asarray(got) - want) / bases), 1e-6)


def _check_adam_atan2(fixture: Fixture, report: Report) -> None:
    arrays = fixture.group('adam_atan2/')
    info = fixture.info['adam_atan2']
    lrs = jnp.asarray(arrays['lrs'], jnp.float32)
    transform = optim.adam_atan2(
        lambda count: lrs[count - 1], info['beta1'], info['beta2'], info['weight_decay']
    )
    names = sorted({name.split('/')[0] for name in arrays if name.endswith('/p0')})
    params = {name: jnp.asarray(arrays[f'{name}/p0'], jnp.float32) for name in names}
    state = transform.init(params)
    steps = {name: [] for name in names}
    moments = {name: [] for name in names}
    for t in range(len(lrs)):
        grads = {name: jnp.asarray(arrays[f'{name}/grads'][t], jnp.float32) for name in names}
        updates, state = transform.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name in names:
            steps[name].append(params[name])
            scale = np.float64(optim.GRADIENT_SCALE)
            moments[name].append((
                np.asarray(state.mu[name], np.float64) / scale,
                np.asarray(state.nu[name], np.float64) / scale**2,
            ))  # fmt: skip
    for name in names:
        report.close(f'adam_atan2/{name}', np.stack(steps[name]), arrays[f'{name}/param'], 1e-6)
        for i, moment in enumerate(('exp_avg', 'exp_avg_sq')):
            got = np.stack([pair[i] for pair in moments[name]])
            report.close_to_largest(
                f'adam_atan2/{name}/{moment}', got, arrays[f'{name}/{moment}'], 1e-6
            )


def _check_sign_sgd(fixture: Fixture, report: Report) -> None:
    arrays = fixture.group('sign_sgd/')
    lrs = jnp.asarray(arrays['lrs'], jnp.float32)
    transform = optim.row_sparse_sign_sgd(
        lambda count: lrs[count - 1], fixture.info['sign_sgd']['weight_decay']
    )
    table = jnp.asarray(arrays['weights0'])
    state = transform.init(table)
    for t, want in enumerate(arrays['weights']):
        grads = optim.RowGradients(arrays['ids'][t], arrays['local_grads'][t])
        updates, state = transform.update(grads, state, table)
        table = optim.apply_row_updates(table, updates)
        report.close(f'sign_sgd/step{t + 1}', table, want, 1e-6)
