"""Names of the SRU and SRU++ levels (NewJerseyStyle/HRM-rnn-base, hrm_act_v2.py, hrm_act_v3.py)."""

import numpy as np

from hrm_jax.config_model import SRUPP_SHRINK, ModelConfig
from hrm_jax.interop.entry import Entry, linear, reshaped, same


def _gates(name: str, path: tuple[str, ...], dim: int, inputs: int) -> Entry:
    # Channel d, gate k stands at row 3 d + k there; here the gates are an axis before the channels.
    return Entry(
        name,
        'params',
        (*path, 'kernel'),
        (3 * dim, inputs),
        lambda x: np.transpose(x.reshape(dim, 3, inputs), (2, 1, 0)),
        lambda x: np.transpose(x, (2, 1, 0)).reshape(3 * dim, inputs),
    )


def _norm(name: str, path: tuple[str, ...], width: int) -> list[Entry]:
    return [
        same(f'{name}.weight', 'params', (*path, 'scale'), (width,)),
        same(f'{name}.bias', 'params', (*path, 'bias'), (width,)),
    ]


def layer_entries(config: ModelConfig, level: str, layer: int) -> list[Entry]:
    """Tensors of one recurrent layer, in the original's order."""
    dim, plus = config.hidden_size, config.block == 'srupp'
    there = f'{level}.{"sru." if plus else ""}rnn_lst.{layer}.'
    here = (level, f'layers_{layer}')
    inner, transform = f'{there}transform_module.', (*here, 'transform')
    collection = 'constants' if config.sru_frozen_weight_c else 'params'
    found = [
        reshaped(f'{there}weight_c', collection, (*here, 'weight_c'), (2 * dim,), (2, dim)),
        reshaped(f'{there}bias', 'params', (*here, 'bias'), (2 * dim,), (2, dim)),
        same(f'{there}scale_x', 'unused', (), (1,)),
    ]
    if not plus:
        return [*found, _gates(f'{inner}weight', transform, dim, dim)]
    width = dim // SRUPP_SHRINK
    return [
        *found,
        same(f'{inner}alpha', 'params', (*transform, 'alpha'), (1,)),
        linear(f'{inner}linear1.weight', (*transform, 'linear1'), (width,), (dim,)),
        linear(f'{inner}linear2.weight', (*transform, 'linear2'), (2 * width,), (width,)),
        _gates(f'{inner}linear3.weight', (*transform, 'linear3'), dim, width),
        *_norm(f'{inner}layer_norm', (*transform, 'layer_norm'), width),
        *_norm(f'{there}layer_norm', (*here, 'layer_norm'), dim),
    ]
