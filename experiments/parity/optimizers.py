"""Checks of the optimizers, the learning-rate schedule and the moving average of the weights."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.registry import Fixture, Report, check
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


@check('adamatan2_pytorch', arrays=('step0/param', 'step1/grad'))
def adam_atan2_pytorch(fixture: Fixture, report: Report) -> None:
    """Updates of one tensor by adam-atan2-pytorch's formula, a learning rate for each."""
    info = fixture.info
    if (info.get('a', 1.27), info.get('b', 1.0)) != (1.27, 1.0):
        raise ValueError('only the a and b that the SRU fork uses are built')
    rates = jnp.asarray(info['lrs'], jnp.float32)
    rule = optim.adam_atan2(
        lambda count: rates[count - 1], *info['betas'], info['weight_decay'], pytorch_package=True
    )
    param = jnp.asarray(fixture.arrays['step0/param'])
    state = rule.init(param)
    for number in range(1, len(info['lrs']) + 1):
        want = fixture.group(f'step{number}/')
        updates, state = rule.update(jnp.asarray(want['grad']), state, param)
        param = param + updates
        report.close(f'step{number}/param', param, want['param'], 1e-6)
        scale = optim.GRADIENT_SCALE
        if 'exp_avg' in want:
            report.close_to_largest(f'step{number}/m', state.mu / scale, want['exp_avg'], 1e-5)
            square = np.asarray(state.nu, np.float64) / scale**2
            report.close_to_largest(f'step{number}/v', square, want['exp_avg_sq'], 1e-5)


@check('trm_ema', arrays=('step0/shadow/*', 'step1/param/*'))
def moving_average(fixture: Fixture, report: Report) -> None:
    """The average after every update, and what the evaluation copy is made of."""
    average = fixture.group('step0/shadow/')
    for name, value in fixture.group('step0/param/').items():
        report.equal(f'step0/{name}', average[name], value)
    steps = {int(key.split('/')[0][4:]) for key in fixture.arrays if key.startswith('step')}
    for number in range(1, max(steps) + 1):
        live = fixture.group(f'step{number}/param/')
        average = optim.update_average(average, live, fixture.info['mu'])
        for name, want in fixture.group(f'step{number}/shadow/').items():
            report.close_to_largest(f'step{number}/{name}', average[name], want, 1e-6)
    for name, want in fixture.group('final/ema_copy/').items():
        live = fixture.group('final/live/').get(name)
        got = average[name] if live is None else live  # the puzzle table is taken as it is
        report.close_to_largest(f'copy/{name}', got, want, 1e-6)
