"""Checks of the optimizers and the weight average that the relatives bring."""

import jax.numpy as jnp
import numpy as np

from experiments.parity_checks.registry import Fixture, Report, check
from hrm_jax import optim


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
