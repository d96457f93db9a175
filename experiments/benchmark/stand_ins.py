"""Replacements for packages that the original imports and that may not install. Torch only.

Nothing here is imported by our own programs: peer.py puts these into ``sys.modules``
where the real package is missing, so that the original's files run as they are.
"""

from collections.abc import Callable
import importlib.machinery
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
    """As much of pydantic as the originals need: keyword arguments, defaults, nested models.

    Values of other names are ignored, or kept in ``__pydantic_extra__`` where ``model_config``
    allows them.
    """

    def __init__(self, **values):
        types_of = {k: v for k, v in self.__annotations__.items() if k != 'model_config'}
        missing = [n for n in types_of if n not in values and not hasattr(type(self), n)]
        if missing:
            raise TypeError(f'{type(self).__name__} needs {", ".join(missing)}')
        for name, kind in types_of.items():
            if name in values and isinstance(values[name], dict) and hasattr(kind, 'model_dump'):
                values[name] = kind(**values[name])
        extra = {name: value for name, value in values.items() if name not in types_of}
        allowed = getattr(type(self), 'model_config', {}).get('extra') == 'allow'
        self.__pydantic_extra__ = extra if allowed else {}
        self.__dict__.update({k: v for k, v in values.items() if k in types_of})
        self.__dict__.update(self.__pydantic_extra__)

    def model_dump(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _module(name: str, **contents) -> Callable[[], types.ModuleType]:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)  # find_spec asks for it
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
                           ('pydantic', {'BaseModel': BaseModel, 'ConfigDict': dict})):  # fmt: skip
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _module(name, **contents)
            replaced.append(name)
    return replaced


def register_trainer(log: Callable[..., None]) -> list[str]:
    """Replaces what the originals' pretrain.py imports around its training; returns the names.

    Always, installed or not: nothing is to be sent away, no flag to be read.

    Args:
      log: called as wandb.log is, with values and ``step``.
    """

    def undecorated(*_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda function: function

    def nothing(*_: Any, **__: Any) -> None:
        return None

    class Bar:
        n = 0

        def __init__(self, *_: Any, **__: Any):
            pass

        def update(self, count: int) -> None:
            self.n += count

    wandb = {'init': nothing, 'finish': nothing, 'Settings': nothing, 'run': None, 'log': log}
    always = {
        'wandb': wandb,
        'hydra': {'main': undecorated},
        'coolname': {'generate_slug': nothing},
        'tqdm': {'tqdm': Bar},
        'omegaconf': {'DictConfig': dict},
        'argdantic': {'ArgParser': nothing},
    }
    for name, contents in always.items():
        sys.modules[name] = _module(name, **contents)
    if importlib.util.find_spec('yaml') is None:
        sys.modules['yaml'] = _module('yaml')
        return [*always, 'yaml']
    return list(always)
