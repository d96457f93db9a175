"""Replacements for packages that the original imports and that may not install. Torch only.

Nothing here is imported by our own programs: peer.py puts these into ``sys.modules``
where the real package is missing, so that the original's files run as they are.
"""

from collections.abc import Callable
import importlib.util
import sys
import types
from typing import Any

import torch
from torch.nn import functional


def attention(q, k, v, causal: bool = False):
    """flash_attn_func on [B, T, N, K] by torch's own fused attention."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).contiguous()


class AdamATan2(torch.optim.Optimizer):
    """Adam with atan2 in place of the division, whole lists of tensors at a time.

    p <- p (1 - lr wd) - lr / (1 - b1^t) atan2(m, sqrt(v / (1 - b2^t))); arXiv 2407.05872. The
    moments are brought up to date in place as the package's CUDA kernel does.
    """

    def __init__(self, params, lr: float = 1e-3, betas=(0.9, 0.99), weight_decay: float = 1e-2):
        super().__init__(params, {'lr': lr, 'betas': betas, 'weight_decay': weight_decay})
        self._updates = 0

    @torch.no_grad()
    def step(self, closure=None):
        del closure
        self._updates += 1
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {'m': torch.zeros_like(p), 'v': torch.zeros_like(p)}
            self._update(params, group)

    def _update(self, params: list, group: dict[str, Any]) -> None:
        grads = [p.grad for p in params]
        m, v = ([self.state[p][name] for p in params] for name in 'mv')
        b1, b2 = group['betas']
        lr = float(group['lr'])
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, 1 - b2)
        roots = torch._foreach_sqrt(v)
        torch._foreach_mul_(roots, (1 - b2**self._updates) ** -0.5)
        for x, y in zip(m, roots, strict=True):  # there is no such function of lists
            torch.atan2(x, y, out=y)
        torch._foreach_mul_(params, 1 - lr * group['weight_decay'])
        torch._foreach_add_(params, roots, alpha=-lr / (1 - b1**self._updates))


class BaseModel:
    """As much of pydantic as the original's model needs: keyword arguments and defaults."""

    def __init__(self, **values):
        names = getattr(type(self), '__annotations__', {})
        missing = [n for n in names if n not in values and not hasattr(type(self), n)]
        if missing:
            raise TypeError(f'{type(self).__name__} needs {", ".join(missing)}')
        self.__dict__.update({name: value for name, value in values.items() if name in names})


def _module(name: str, **contents) -> Callable[[], types.ModuleType]:
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    return module


def register() -> list[str]:
    """Puts a stand-in into ``sys.modules`` for each missing package; returns their names."""
    found = {'flash_attn_interface', 'flash_attn'} & {
        name for name in ('flash_attn_interface', 'flash_attn') if importlib.util.find_spec(name)
    }
    replaced = []
    if not found:
        sys.modules['flash_attn'] = _module('flash_attn', flash_attn_func=attention)
        replaced.append('flash_attn')
    for name, contents in (('adam_atan2', {'AdamATan2': AdamATan2}),
                           ('pydantic', {'BaseModel': BaseModel})):  # fmt: skip
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _module(name, **contents)
            replaced.append(name)
    return replaced
