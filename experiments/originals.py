"""One configuration for both sides: settings of an original, read from ours.

``of_original`` gives an original every setting that it has, and refuses a configuration with
anything that it has not. So the two sides of a comparison cannot differ by a setting: each setting
of ours is either handed over, or at the original's own value, or without influence on learning.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from hrm_jax import config as config_lib
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

# The original's setting -> ours, where the values are the same.
_MODEL = {
    name: f'model.{name}'
    for name in ('H_cycles', 'L_cycles', 'H_layers', 'L_layers', 'hidden_size', 'expansion',
                 'num_heads', 'pos_encodings', 'rms_norm_eps', 'rope_theta', 'puzzle_emb_ndim',
                 'forward_dtype')
} | {name: f'act.{name}' for name in ('halt_max_steps', 'halt_exploration_prob')}  # fmt: skip
_TRAINING = {
    name: f'optimizer.{name}'
    for name in ('lr', 'lr_min_ratio', 'lr_warmup_steps', 'weight_decay', 'beta1', 'beta2',
                 'puzzle_emb_lr', 'puzzle_emb_weight_decay')
} | {key: f'train.{key}' for key in ('global_batch_size', 'epochs', 'eval_interval')}  # fmt: skip
_PATHS_MODEL = {
    'd_model': 'model.hidden_size', 'head_cnt': 'model.num_heads',
    'sdpa_dropout': 'model.attention_dropout', 'bias_qkv': 'model.qkv_bias',
    'bias_o': 'model.o_bias', 'expansion': 'model.expansion',
    'elementwise_affine': 'model.norm_scale', 'dropout': 'model.dropout',
    'H_block_cnt': 'model.H_layers', 'L_block_cnt': 'model.L_layers',
    'H_cycle_cnt': 'model.H_cycles', 'L_cycle_cnt': 'model.L_cycles',
    'infer_segment_cnt': 'eval.halt_max_steps', 'head_bias': 'model.head_bias',
}  # fmt: skip
_PATHS_TRAINING = {
    'train_segment_cnt': 'act.halt_max_steps', 'epoch_cnt': 'train.epochs',
    'weight_decay': 'optimizer.weight_decay', 'batch_size': 'train.global_batch_size',
    'lr': 'optimizer.lr',
}  # fmt: skip
_PATHS_POSITIONS = {
    'rope': (True, False), 'learned': (False, True), 'rope+learned': (True, True),
    'none': (False, False),
}  # fmt: skip
# Sizes that each side reads from the folder itself, and what changes no number of a training.
NO_INFLUENCE = (
    'name', 'seed', 'data.path', 'data.format', 'data.task', 'model.vocab_size', 'model.seq_len',
    'model.num_puzzle_identifiers', 'model.attention', 'model.remat', 'model.unroll_cycles',
    'train.log_every_steps', 'train.steps_per_dispatch', 'eval.global_batch_size',
    'eval.save_outputs', 'checkpoint.', 'logging.', 'mesh.',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Original:
    """What one of the originals can be told.

    Attributes:
      repository: on GitHub.
      marker: a file of a checkout.
      base: a configuration of ours with the values that the original has and nobody can change.
      read: names of ours that ``of_original`` hands over.
      allowed: name of ours -> values that the original has, and that it trains with.
    """

    repository: str
    marker: str
    base: ExperimentConfig
    read: tuple[str, ...]
    allowed: dict[str, tuple[Any, ...]]


def _paths_base() -> ExperimentConfig:
    return ExperimentConfig(
        model=config_lib.ModelConfig(
            round_mlp=False, rms_norm_eps=1.1920928955078125e-07, scale_learned_positions=False,
            initializer='uniform', puzzle_emb_ndim=0, q_head=False, forward_dtype='float32',
        ),
        act=config_lib.ActConfig(halting='fixed'),
        loss=config_lib.LossConfig(loss_type='softmax_cross_entropy', q_weight=0.0),
        optimizer=config_lib.OptimizerConfig(name='adamw', lr_warmup_steps=0, beta2=0.999),
        eval=config_lib.EvalConfig(depth_multiples=(4,)),
    )  # fmt: skip


def _shared_base() -> ExperimentConfig:
    base = ExperimentConfig()
    model = dataclasses.replace(base.model, levels='shared', gradient_window='last_cycle')
    return dataclasses.replace(base, model=model, act=config_lib.ActConfig(halting='halt_only'))


# The softmax losses of the first two do not train on a CPU: HRM's takes a view of a strided tensor,
# TinyRecursiveModels' is called with an argument that it does not have.
_STABLEMAX = {'loss.loss_type': ('stablemax_cross_entropy',)}
ORIGINALS = {
    'hrm': Original(
        'sapientinc/HRM',
        'models/hrm/hrm_act_v1.py',
        ExperimentConfig(),
        (*_MODEL.values(), *_TRAINING.values(), 'loss.loss_type'),
        _STABLEMAX | {'model.pos_encodings': ('rope', 'learned')},
    ),
    'trm': Original(
        'SamsungSAILMontreal/TinyRecursiveModels',
        'models/recursive_reasoning/trm.py',
        _shared_base(),
        (*_MODEL.values(), *_TRAINING.values(), 'loss.loss_type', 'model.puzzle_emb_len',
         'model.block', 'optimizer.ema_decay'),
        _STABLEMAX
        | {'model.pos_encodings': ('rope', 'learned', 'none'),
           'model.block': ('attention', 'token_mixing')},
    ),
    'paths': Original(
        'krychu/hrm',
        'hrm/hrm.py',
        _paths_base(),
        (*_PATHS_MODEL.values(), *_PATHS_TRAINING.values(), 'model.pos_encodings',
         'optimizer.grad_clip_norm', 'train.eval_interval'),
        {'model.pos_encodings': tuple(_PATHS_POSITIONS)},
    ),
}  # fmt: skip


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting by its dotted name."""
    found = {}

    def walk(values: dict[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, f'{prefix}{name}.')
            else:
                found[prefix + name] = value

    walk(config.to_dict(), '')
    return found


def changed(config: ExperimentConfig) -> dict[str, Any]:
    """Settings with another value than the default, by dotted name.

    What is compared or kept by them outlives settings that are added later.
    """
    usual = flatten(ExperimentConfig())
    return {key: value for key, value in flatten(config).items() if value != usual[key]}


def has_influence(name: str) -> bool:
    """Whether a setting of ours changes what is learned."""
    return not any(
        name.startswith(part) if part.endswith('.') else name == part for part in NO_INFLUENCE
    )


def of_original(name: str, config: ExperimentConfig) -> dict[str, Any]:
    """The settings of an original, as its own program takes them.

    Args:
      name: a key of ``ORIGINALS``.
      config: ours.

    Returns:
      hrm, trm: what their pretrain.py reads from Hydra. paths: the fields of HRMParameters
      (``model``) and of HRMTrainParameters (``training``), without the data set's sizes.

    Raises:
      ConfigError: the original has no such setting, or not this value of it.
    """
    original, values = ORIGINALS[name], flatten(config)
    for key, fixed in flatten(original.base).items():
        ConfigError.require(
            key in original.read or not has_influence(key) or values[key] == fixed,
            f'{original.repository} trains with {key}={fixed} only; got {values[key]}.',
        )
    for key, allowed in original.allowed.items():
        ConfigError.require(
            values[key] in allowed,
            f'{original.repository} can be trained here with {key} in {", ".join(allowed)}; got '
            f'{values[key]}.',
        )
    if name == 'paths':
        rope, learned = _PATHS_POSITIONS[values['model.pos_encodings']]
        return {
            'model': {key: values[ours] for key, ours in _PATHS_MODEL.items()}
            | {'use_rope': rope, 'use_abs_pos': learned, 'learnable_z_init': True},
            'training': {key: values[ours] for key, ours in _PATHS_TRAINING.items()}
            | {'grad_clip': values['optimizer.grad_clip_norm'] or None},
            'eval_interval': values['train.eval_interval'],
            'seed': config.seed,
            'data_path': config.data.path,
        }
    arch = {key: values[ours] for key, ours in _MODEL.items()}
    arch['loss'] = {'name': 'losses@ACTLossHead', 'loss_type': values['loss.loss_type']}
    found = {key: values[ours] for key, ours in _TRAINING.items()} | {'seed': config.seed}
    if name == 'hrm':
        arch['name'] = 'hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1'
        return found | {'arch': arch, 'data_path': config.data.path}
    arch |= {
        'name': 'recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1',
        'puzzle_emb_len': values['model.puzzle_emb_len'],
        'mlp_t': values['model.block'] == 'token_mixing',
        'no_ACT_continue': True,
    }
    decay = values['optimizer.ema_decay']
    return found | {
        'arch': arch, 'data_paths': [config.data.path], 'ema': decay > 0, 'ema_rate': decay
    }  # fmt: skip


def name_of(folder: str | Path) -> str:
    """Which original a checkout is of.

    Raises:
      ConfigError: of none.
    """
    found = [name for name, one in ORIGINALS.items() if (Path(folder) / one.marker).is_file()]
    known = ', '.join(original.repository for original in ORIGINALS.values())
    ConfigError.require(
        bool(found), f'must be a checkout of one of {known}; got {folder}, which is none of them.'
    )
    return found[0]


def check_checkout(name: str, folder: str | Path) -> None:
    """Raises ConfigError unless a folder is a checkout of the original."""
    original = ORIGINALS[name]
    ConfigError.require(
        (Path(folder) / original.marker).is_file(),
        f'--{name} must be a checkout of {original.repository}, with {original.marker}; got '
        f'{folder}. Get one: git clone https://github.com/{original.repository}',
    )


def fingerprint(name: str, config: ExperimentConfig) -> str:
    """Text that two runs share when they are the same training, whatever their seed."""
    values = {key: value for key, value in changed(config).items() if has_influence(key)}
    return json.dumps({'original': name, **values}, sort_keys=True)
