"""The README that goes with a saved model."""

import jax
import numpy as np

from hrm_jax.checkpoint import Weights

_TEXT = """\
---
library_name: hrm_jax
tags:
- hierarchical-reasoning-model
- jax
- flax
---

# Hierarchical Reasoning Model

{parameters:,} parameters{table}, after {step} train steps. Saved by hrm_jax {version}.

| setting | value |
|---|---|
{settings}

## Use

```python
from hrm_jax import HrmForCausalLM

model = HrmForCausalLM.from_pretrained('PATH_OR_HUB_ID')
boards = model.generate(input_ids)  # int32 token ids, [boards, {seq_len}]
```

`config.json` and `model.safetensors` use the names of the HRM contribution to transformers; our
own configuration stands in `config.json` under `hrm_jax`.

Architecture: Wang et al., Hierarchical Reasoning Model, arXiv 2506.21734.
"""
_SHOWN = (
    'levels', 'block', 'hidden_size', 'num_heads', 'mlp_dim', 'H_layers', 'L_layers', 'H_cycles',
    'L_cycles', 'pos_encodings', 'vocab_size', 'seq_len', 'puzzle_emb_ndim', 'forward_dtype',
)  # fmt: skip


def text(weights: Weights) -> str:
    """Returns the model card of weights: sizes, settings, how to load; no claims of quality."""
    from hrm_jax import __version__

    model = weights.config.model
    settings = {name: getattr(model, name) for name in _SHOWN}
    settings['halt_max_steps'] = weights.config.act.halt_max_steps
    table = weights.puzzle_table
    return _TEXT.format(
        parameters=sum(int(np.size(leaf)) for leaf in jax.tree.leaves(weights.params)),
        table='' if table is None else f' and a puzzle table of {table.shape[0]} rows',
        step=weights.step,
        version=__version__,
        settings='\n'.join(f'| {name} | {value} |' for name, value in settings.items()),
        seq_len=model.seq_len,
    )
