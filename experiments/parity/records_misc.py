"""Checks of single parts: URM's gated unit with a convolution, CGAR's stages and weights.

Sources: UbiquantAI/URM models/layers.py, ConvSwiGLU; CGAR's model file (arXiv 2511.08653).
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from hrm_jax import curriculum, losses
from hrm_jax.config import LossConfig, ModelConfig
from hrm_jax.model import layers
from hrm_jax.types import Outputs

BFLOAT16_TOLERANCE = 2e-2  # of the largest


@check(arrays=('urm/param/*', 'urm/x'))
def conv_gated_unit(fixture: Fixture, report: Report) -> None:
    """The unit alone, in float32 with gradients and with its convolution in bfloat16."""
    want = fixture.group('urm/')
    inner = len(want['param/dwconv.bias'])
    dim = want['x'].shape[-1]
    params = {
        'gate_up_proj': {'kernel': want['param/gate_up_proj.weight'].T.reshape(dim, 2, inner)},
        'conv': {
            'kernel': want['param/dwconv.weight'][:, 0].T, 'bias': want['param/dwconv.bias'],
        },
        'down_proj': {'kernel': want['param/down_proj.weight'].T},
    }  # fmt: skip
    params = jax.tree.map(jnp.asarray, params)

    def run(params, x, conv_dtype):
        config = ModelConfig(gated_unit='conv_swiglu', conv_dtype=conv_dtype)
        return layers.GatedUnit(config, inner).apply({'params': params}, x)

    y, pullback = jax.vjp(lambda p, x: run(p, x, 'forward'), params, want['x'])
    report.close('urm/fp32', y, want['fp32/y'], OUTPUT_TOLERANCE)
    grads, of_x = pullback(jnp.asarray(want['cotangent']))
    found = {
        'x': of_x,
        'gate_up_proj.weight': grads['gate_up_proj']['kernel'].reshape(dim, -1).T,
        'dwconv.weight': grads['conv']['kernel'].T[:, None],
        'dwconv.bias': grads['conv']['bias'],
        'down_proj.weight': grads['down_proj']['kernel'].T,
    }
    for name, got in found.items():
        report.close_to_largest(f'urm/{name}', got, want[f'fp32/grad/{name}'], GRADIENT_TOLERANCE)
    rounded = run(params, want['x'], 'bfloat16')
    report.close_to_largest('urm/bfloat16', rounded, want['bf16conv/y'], BFLOAT16_TOLERANCE)


@check(arrays=('cgar/stages', 'cgar/weights'))
def cgar(fixture: Fixture, report: Report) -> None:
    """The table of stages, and the weights of the ACT steps as the loss has them."""
    for high, low, *stages in fixture.arrays['cgar/stages'].tolist():
        first, second, last = curriculum.cgar_stages(high, low)
        report.equal(f'cgar/{high}x{low}', [*first, *second], stages)
        report.equal(f'cgar/{high}x{low}/last', last, (high, low))
    wanted = fixture.arrays['cgar/weights']
    decay = float(wanted[1] / wanted[0])
    config = LossConfig(q_weight=0.0, step_decay=decay)
    outputs = Outputs(jnp.zeros((1, 1, 5)), jnp.zeros(1), jnp.zeros(1))
    label, halted = jnp.ones((1, 1), jnp.int32), jnp.ones(1, bool)
    got = [
        float(losses.act_loss(outputs, label, jnp.array([n + 1]), halted, None, config)[0])
        for n in range(len(wanted))
    ]
    report.close_relative('cgar/weights', np.array(got) / got[0], wanted / wanted[0], 1e-5)
