"""Models on the Hugging Face hub: files down, folders up, and the model card."""

import os
import re

import jax
import numpy as np

from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.errors import CheckpointError

_HUB_ID = re.compile(r'^[A-Za-z0-9][\w.-]*/[\w.-]+$')
# Weights and configurations in the formats that are read here; no optimizer states, no code.
_PATTERNS = [
    'config.json', 'all_config.yaml', '*.safetensors', '*.safetensors.index.json', 'step_*',
    'checkpoint*', '*.pt', '*.pth', 'pytorch_model*.bin', 'pytorch_model.bin.index.json',
]  # fmt: skip


def is_hub_id(text: str) -> bool:
    """Whether a text has the form owner/name."""
    return bool(_HUB_ID.match(text))


def local_path(path_or_hub_id: str | os.PathLike, revision: str | None = None) -> str:
    """Returns the path as it is, or the folder of the downloaded files of a hub id.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` such as
        ``sapientinc/HRM-checkpoint-sudoku-extreme``.
      revision: branch, tag or commit on the hub.

    Raises:
      CheckpointError: it is neither a path nor the shape of a hub id, or the hub does not answer,
        or has no such model.
    """
    path = os.fspath(path_or_hub_id)
    if os.path.exists(path):
        return path
    if not _HUB_ID.match(path):
        raise CheckpointError(f'{path}: no such file or folder, nor a hub id (owner/name).')
    advice = (
        f'where there is a network, run `hf download {path} --local-dir DIR`, copy DIR here and '
        f'give DIR in place of the id'
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f'{path} is not a local path, and the hub needs huggingface_hub installed; or {advice}.'
        ) from error
    try:
        return huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=_PATTERNS)
    # huggingface_hub passes on the errors of whatever HTTP library it uses.
    except Exception as error:
        reason = type(error).__name__
        if reason in ('RepositoryNotFoundError', 'RevisionNotFoundError', 'GatedRepoError'):
            raise CheckpointError(
                f'the hub does not give out {path} ({reason}): check the name, the revision and '
                f'your login (`hf auth login`).'
            ) from error
        raise CheckpointError(
            f'{path} is not a local path, and the Hugging Face hub cannot be reached ({reason}): '
            f'{advice}.'
        ) from error


def upload_folder(folder: str | os.PathLike, repo_id: str, **options) -> str:
    """Creates the repository if need be and uploads a folder; returns the address of the commit.

    Args:
      folder: what ``save_pretrained`` wrote.
      repo_id: ``owner/name``.
      **options: ``private`` for a new repository; ``token``, ``commit_message`` and whatever
        else ``HfApi.upload_folder`` takes.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=options.pop('token', None))
    api.create_repo(repo_id, private=options.pop('private', None), exist_ok=True)
    options.setdefault('commit_message', 'Upload HRM')
    return str(api.upload_folder(folder_path=os.fspath(folder), repo_id=repo_id, **options))


_MODEL_CARD = """\
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
_CARD_SETTINGS = (
    'levels', 'block', 'hidden_size', 'num_heads', 'mlp_dim', 'H_layers', 'L_layers', 'H_cycles',
    'L_cycles', 'pos_encodings', 'vocab_size', 'seq_len', 'puzzle_emb_ndim', 'forward_dtype',
)  # fmt: skip


def model_card(saved: SavedModel) -> str:
    """Returns the model card of weights: sizes, settings, how to load; no claims of quality."""
    from hrm_jax import __version__

    model = saved.config.model
    settings = {name: getattr(model, name) for name in _CARD_SETTINGS}
    settings['halt_max_steps'] = saved.config.act.halt_max_steps
    table = saved.weights.puzzle_table
    return _MODEL_CARD.format(
        parameters=sum(int(np.size(leaf)) for leaf in jax.tree.leaves(saved.weights.params)),
        table='' if table is None else f' and a puzzle table of {table.shape[0]} rows',
        step=saved.step,
        version=__version__,
        settings='\n'.join(f'| {name} | {value} |' for name, value in settings.items()),
        seq_len=model.seq_len,
    )
