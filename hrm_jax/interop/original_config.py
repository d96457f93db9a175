"""The originals' ``all_config.yaml`` against our configuration, both ways.

Sources: sapientinc/HRM config/cfg_pretrain.yaml, config/arch/hrm_v1.yaml, and
SamsungSAILMontreal/TinyRecursiveModels config/arch/trm.yaml. The file is a dump of the training
run's settings; sizes of the data set are not in it.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
import typing
from typing import Any

from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import interpolation, se_rrm
from hrm_jax.interop.architecture import Finding

FILE_NAME = 'all_config.yaml'
_MODEL_KEYS = (
    'vocab_size', 'seq_len', 'num_puzzle_identifiers', 'H_cycles', 'L_cycles', 'H_layers',
    'L_layers', 'hidden_size', 'num_heads', 'expansion', 'pos_encodings', 'rope_theta',
    'rms_norm_eps', 'puzzle_emb_ndim', 'puzzle_emb_len', 'forward_dtype',
)  # fmt: skip
_SIZE_KEYS = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
_OPTIMIZER_KEYS = (
    'lr', 'lr_min_ratio', 'lr_warmup_steps', 'beta1', 'beta2', 'weight_decay', 'puzzle_emb_lr',
    'puzzle_emb_weight_decay',
)  # fmt: skip
_TRAIN_KEYS = ('global_batch_size', 'epochs', 'eval_interval')
# EqR's keys (models/eqr.py) -> ours.
_EQR_KEYS = {
    'lambda_': 'update_rate', 'noise_scale': 'update_noise', 'H_init_std': 'high_start_std',
    'L_init_std': 'low_start_std', 'board_width': 'board_width',
}  # fmt: skip
# URM's keys (models/urm/urm.py, config/arch/urm.yaml), and those that its class ignores.
_URM_KEYS = (
    'num_layers', 'loops', 'loop_deltas', 'profile', 'attn_dropout', 'mlp_dropout', 'eval_interval',
    'checkpoint_every_eval', 'checkpoint_path', 'ema', 'ema_rate',
)  # fmt: skip
# Keys of ``arch`` that change no number here: what they name shows in the tensors.
_OTHER_KEYS = (
    'name', 'loss', 'halt_max_steps', 'halt_exploration_prob', 'mlp_t', 'no_ACT_continue',
    'batch_size', 'hrm_jax', 'board_height',
)  # fmt: skip
# Defaults of the model classes, for keys that a configuration may leave out.
_DEFAULTS = {'rope_theta': 10000.0, 'rms_norm_eps': 1e-5}
_MOST_BYTES = 1 << 20  # of a configuration
_TRM_PUZZLE_EMB_LEN = 16
# SE-RRM (config/arch/trm_equi.yaml): their names of settings -> ours.
_SE_RRM_KEYS = {
    'head_dim': 'head_size', 'num_heads_t': 'symbol_heads', 'head_dim_t': 'symbol_head_size',
    'equivariant_symbols': 'shared_symbols', 'add_tokens': 'added_tokens',
    'dropout': 'attention_dropout',
}  # fmt: skip
_SE_RRM_POSITIONS = {'rope': 'rope', 'rope2d': 'rope2d_whole'}  # all others are learned


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a configuration file states, in our names.

    Attributes:
      model: settings of ModelConfig; only those that the file, or a default of the class that
        it names, really gives.
      rest: the other sections of ExperimentConfig, as nested mappings.
      source: name of the file, for messages.
    """

    model: dict[str, Any]
    rest: dict[str, Any]
    source: str


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML or JSON file that holds a mapping, its interpolations (``${.x}``) resolved.

    Raises:
      CheckpointError: it is neither, or an interpolation leads nowhere.
    """
    import yaml  # comes with flax; only foreign configurations need it

    size = os.path.getsize(path)
    CheckpointError.require(
        size <= _MOST_BYTES, f'{path} must have at most {_MOST_BYTES:,} bytes; it has {size:,}.'
    )
    with open(path, encoding='utf-8-sig') as file:
        try:
            text = file.read()
            try:  # first: to YAML, 1e-08 is text
                values = json.loads(text)
            except ValueError:
                values = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            what = str(error).replace('\n', ' ')
            raise CheckpointError(f'{path}: neither YAML nor JSON ({what}).') from error
    if not isinstance(values, dict):
        raise CheckpointError(f'{path}: must hold a mapping; it holds {values!r:.80}.')
    return interpolation.resolved(values, os.fspath(path))


def typed(values: Mapping[str, Any], name: str, kind: type, source: str) -> Any:
    """Returns a setting as the type that it must have; a whole number may stand for a float.

    Raises:
      CheckpointError: it has another type; file and key are named.
    """
    value = values[name]
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)  # to YAML, 1e-4 is text
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not kind:
        raise CheckpointError(f'{source}: {name} must be {kind.__name__}; got {value!r:.60}.')
    return value


def from_original(
    values: Mapping[str, Any], source: str, findings: Mapping[str, Finding]
) -> Settings:
    """Translates a parsed all_config.yaml, or the settings of a model alone.

    Args:
      values: with a section ``arch`` (a training run), or with the keys of that section.
      source: name of the file, for messages.
      findings: what the tensors show; they distinguish the model classes, whose defaults differ.
    """
    arch = values.get('arch', values)
    if not isinstance(arch, Mapping):
        raise CheckpointError(f'{source}: arch must be a section; got {arch!r:.80}.')
    ours = values.get('hrm_jax') or {}
    if not isinstance(ours, Mapping):
        raise CheckpointError(f'{source}: hrm_jax must be a section; got {ours!r:.80}.')
    if 'arch' not in values and 'defaults' in values:
        raise CheckpointError(
            f'{source} only names other files (defaults). Give all_config.yaml, which the training '
            f'run leaves beside its checkpoints, or the file of the architecture.'
        )
    is_urm = 'gated_unit' in findings  # the only one that shows
    more = _URM_KEYS if is_urm else ()
    more = tuple(_SE_RRM_KEYS) if 'symbol_exchange' in findings else more
    _check_known(arch, source, 'arch' not in values, more)
    model = _DEFAULTS | _typed_settings(arch, _MODEL_KEYS, ModelConfig, source)
    if 'symbol_exchange' in findings:
        model |= _se_rrm(arch, model, source)
    model |= _typed_settings(ours, _SIZE_KEYS, ModelConfig, source)
    renamed = {new: arch[old] for old, new in _EQR_KEYS.items() if arch.get(old) is not None}
    model |= _typed_settings(renamed, tuple(renamed), ModelConfig, source)
    act_keys = ('halt_max_steps', 'halt_exploration_prob')
    act = _typed_settings(arch, act_keys, ActConfig, source)
    if arch.get('mlp_t') is not None:
        model['block'] = 'token_mixing' if typed(arch, 'mlp_t', bool, source) else 'attention'
    if findings['block'].value not in ('attention', 'token_mixing'):
        model.pop('block', None)
    if is_urm:
        model, act = _of_urm(arch, model, act, source)
    else:
        model, act = _of_family(arch, model, act, findings)
    rest: dict[str, Any] = {'act': act}
    loss = arch.get('loss')
    if isinstance(loss, Mapping) and 'loss_type' in loss:
        rest['loss'] = {'loss_type': loss['loss_type']}
    if 'arch' in values:
        rest |= _training(values, source)
    return Settings(model, rest, source)


def _check_known(arch: Mapping[str, Any], source: str, whole: bool, more: tuple[str, ...]) -> None:
    """Refuses settings that may change what the model computes and are not known here.

    The original's classes ignore them; but who wrote them had a class that did not.
    """
    known = {*_MODEL_KEYS, *_OTHER_KEYS, *_EQR_KEYS, *more}
    if whole:  # the file of an architecture, or settings with those of the training beside them
        known |= {*_OPTIMIZER_KEYS, *_TRAIN_KEYS, 'seed', 'run_name', 'data_path', 'data_paths'}
    unknown = [name for name, value in arch.items() if name not in known and value]
    if unknown:
        listed = ', '.join(f'{name}={arch[name]!r:.40}' for name in unknown)
        raise CheckpointError(
            f'{source}: {listed} may change what the model computes, and is not known here. Take '
            f'it out of the file (or a copy for --config) if it does not.'
        )


def _typed_settings(
    values: Mapping[str, Any], names: tuple[str, ...], section: type, source: str
) -> dict[str, Any]:
    """Those of the named settings that are given, as the types that a section wants."""
    hints = typing.get_type_hints(section)
    found = {}
    for name in names:
        if values.get(name) is not None:
            kind = hints[name] if hints[name] in (int, float, bool) else str
            found[name] = typed(values, name, kind, source)
    return found


def _se_rrm(arch, model: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of SE-RRM in our names, and what is fixed in its class."""
    renamed = {ours: arch[name] for name, ours in _SE_RRM_KEYS.items() if name in arch}
    found = _typed_settings(renamed, tuple(renamed), ModelConfig, source)
    found['dropout_at_inference'] = found.get('attention_dropout', 0) > 0
    if 'pos_encodings' in model:
        found['pos_encodings'] = _SE_RRM_POSITIONS.get(model['pos_encodings'], 'learned')
    return found


def _of_family(arch, model, act, findings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Adds what is fixed in, or the default of, the class that has such tensors."""
    levels = findings['levels'].value
    if levels == 'separate':
        return model, act
    model = model | {'H_layers': 0}
    if 'symbol_exchange' in findings:
        return model | {'gradient_window': 'last_cycle'}, act | {'halting': 'random'}
    if levels == 'single' and not findings['closing_update'].value:
        # transformers_baseline: its one stack is the H level, which runs once per ACT step.
        model |= {'L_layers': arch.get('H_layers', findings['L_layers'].value)}
        model |= {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'}
        return model, act
    model['gradient_window'] = 'last_cycle'
    if findings['puzzle_emb_ndim'].value:
        model.setdefault('puzzle_emb_len', _TRM_PUZZLE_EMB_LEN)
    halt_only = arch.get('no_ACT_continue', True)
    return model, act | {'halting': 'halt_only' if halt_only else 'q_learning'}


def _of_urm(arch, model, act, source) -> tuple[dict[str, Any], dict[str, Any]]:
    """What URM names otherwise, and what is fixed in its class."""
    for name, settings, theirs in (('L_layers', model, 'num_layers'),
                                   ('halt_max_steps', act, 'loops')):  # fmt: skip
        if arch.get(theirs) is not None:
            settings[name] = typed(arch, theirs, int, source)
    fixed = {'H_layers': 0, 'gradient_window': 'last_cycle', 'conv_dtype': 'bfloat16'}
    return model | fixed, act | {'halting': 'halt_only', 'halt_exploration_prob': 0.1}


def _training(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    def given(name: str, kind: type, default: Any = None) -> Any:
        return default if values.get(name) is None else typed(values, name, kind, source)

    optimizer = {name: given(name, float) for name in _OPTIMIZER_KEYS}
    optimizer = {name: value for name, value in optimizer.items() if value is not None}
    if 'lr_warmup_steps' in optimizer:
        optimizer['lr_warmup_steps'] = round(optimizer['lr_warmup_steps'])
    if given('ema', bool, False):
        optimizer['ema_decay'] = given('ema_rate', float, 0.999)
    if values.get('freeze_weights') is not None:
        optimizer['freeze_weights'] = given('freeze_weights', bool)
    train = {name: given(name, int) for name in _TRAIN_KEYS}
    train = {name: value for name, value in train.items() if value is not None}
    train.setdefault('eval_interval', 0)
    paths = given('data_paths', list) or [given('data_path', str, '')]
    rest: dict[str, Any] = {'optimizer': optimizer, 'train': train}
    if paths[0]:
        rest['data'] = {'path': str(paths[0])}
    if (seed := given('seed', int)) is not None:
        rest['seed'] = seed
    if name := given('run_name', str, ''):
        rest['name'] = name
    return rest


def to_original(config: ExperimentConfig) -> dict[str, Any]:
    """Returns our configuration as the mapping that the originals dump to all_config.yaml.

    Raises:
      CheckpointError: the model has a part that no original has.
    """
    model, act, optimizer = config.model, config.act, config.optimizer
    arch: dict[str, Any] = {
        'name': _class_name(model),
        'loss': {'name': 'losses@ACTLossHead', 'loss_type': config.loss.loss_type},
        'halt_exploration_prob': act.halt_exploration_prob,
        'halt_max_steps': act.halt_max_steps,
    }
    skipped = (*_SIZE_KEYS, 'puzzle_emb_len')
    if model.has_symbols:
        se_rrm.check_named(model)
        arch |= {name: getattr(model, ours) for name, ours in _SE_RRM_KEYS.items()}
        arch['head_dim'] = model.head_dim
    arch |= {name: getattr(model, name) for name in _MODEL_KEYS if name not in skipped}
    arch['expansion'] = _expansion(model)
    if model.has_symbols:
        theirs = {ours: name for name, ours in _SE_RRM_POSITIONS.items()}
        arch['pos_encodings'] = theirs.get(model.pos_encodings, model.pos_encodings)
    if model.block == 'token_mixing':
        arch['mlp_t'] = True
    from_trm = model.levels != 'separate'
    if from_trm and not model.has_symbols:
        arch |= {
            'mlp_t': model.block == 'token_mixing',
            'puzzle_emb_len': model.puzzle_emb_len,
            'no_ACT_continue': act.halting == 'halt_only',
        }
    if model.initial_state == 'random':
        arch |= {old: getattr(model, new) for old, new in _EQR_KEYS.items()}
        arch['board_height'] = model.board_shape[0] if model.board_width else 0
    if model.gated_unit == 'conv_swiglu':
        arch |= {'num_layers': arch.pop('L_layers'), 'loops': arch.pop('halt_max_steps')}
        for name in ('H_layers', 'puzzle_emb_len', 'no_ACT_continue', 'mlp_t'):
            arch.pop(name, None)
    elif model.levels == 'single' and not model.closing_update and not model.has_symbols:
        arch['H_layers'] = model.L_layers
    if model.is_recurrent:
        del arch['H_cycles'], arch['L_cycles']
    values: dict[str, Any] = {'arch': arch, 'data_path': config.data.path}
    if from_trm:
        values |= {'data_paths': [values.pop('data_path')], 'evaluators': []}
        values |= {'ema': optimizer.ema_decay > 0, 'ema_rate': optimizer.ema_decay or 0.999}
    values |= {name: getattr(config.train, name) for name in _TRAIN_KEYS}
    values['eval_interval'] = config.train.eval_interval or None
    values |= {name: getattr(optimizer, name) for name in _OPTIMIZER_KEYS}
    values |= {
        'project_name': None,
        'run_name': config.name,
        'checkpoint_path': None,
        'seed': config.seed,
        'checkpoint_every_eval': False,
        'eval_save_outputs': [],
        # The originals take the sizes from the data set and ignore keys that they do not know.
        'hrm_jax': {name: getattr(model, name) for name in _SIZE_KEYS},
    }
    return values


def _class_name(model: ModelConfig) -> str:
    """``file@class`` under models/ of the repository that has this architecture."""
    if model.has_symbols:
        return 'recursive_reasoning.trm_equi@SERRM'
    if model.is_recurrent:
        version = 'v2' if model.block == 'sru' else 'v3'
        return f'hrm.hrm_act_{version}@HierarchicalReasoningModel_ACT{version.upper()}'
    if model.gated_unit == 'conv_swiglu':
        return 'urm.urm@URM'
    if model.levels == 'single' and not model.closing_update:
        return 'recursive_reasoning.transformers_baseline@Model_ACTV2'
    if model.levels == 'separate':
        folder = 'recursive_reasoning.hrm' if model.block == 'token_mixing' else 'hrm.hrm_act_v1'
        return f'{folder}@HierarchicalReasoningModel_ACTV1'
    if model.initial_state == 'random':
        return 'eqr@EqRModel'
    file = 'trm_hier6' if model.low_states > 1 else 'trm'
    file = 'trm_singlez' if model.levels == 'single' else file
    return f'recursive_reasoning.{file}@TinyRecursiveReasoningModel_ACTV1'


def _expansion(model: ModelConfig) -> float:
    """The expansion that gives the inner size of the gated units by the original's rule.

    Raises:
      CheckpointError: there is none.
    """
    rule = dataclasses.replace(model, intermediate_size=0)
    if rule.mlp_dim == model.mlp_dim:
        return model.expansion
    expansion = model.mlp_dim * 1.5 / model.hidden_size
    if dataclasses.replace(rule, expansion=expansion).mlp_dim != model.mlp_dim:
        raise CheckpointError(
            f'model.intermediate_size is {model.mlp_dim}, but the original has multiples of 256 '
            f'only. Save as huggingface or safetensors.'
        )
    return expansion


def write_yaml(path: str | os.PathLike, values: Mapping[str, Any]) -> None:
    """Writes the mapping as the originals do, keys sorted."""
    import yaml

    # json first: turns tuples and numpy numbers into what safe_dump knows.
    with open(path, 'w', encoding='utf-8') as file:
        yaml.safe_dump(json.loads(json.dumps(values)), file)
