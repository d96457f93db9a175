"""Inference of a model's architecture from the names and shapes of a checkpoint's tensors.

Blocks, layers, widths, vocabulary, puzzle table and learned positions can be seen; the number
of heads, of cycles and of ACT steps, the rotary base and (without learned positions) the length
of a puzzle cannot, and must come from a configuration. What both know must agree.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

import numpy as np

from hrm_jax.config import ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import se_rrm

NO_CONFIGURATION = 'a configuration'  # source of settings where there is none
_LAYER = re.compile(r'^(?:([HL]_level)\.)?(layers|rnn_lst|sru\.rnn_lst)\.(\d+)\.')
_RECURRENT = {'rnn_lst': 'sru', 'sru.rnn_lst': 'srupp'}
_MIXERS = {'mlp_t': 'token_mixing', 'self_attn': 'attention'}  # part of a block -> its kind


@dataclasses.dataclass(frozen=True)
class Finding:
    """A setting of ModelConfig as the tensors show it, and where it shows."""

    value: Any
    evidence: str


def infer_model(tensors: Mapping[str, np.ndarray]) -> dict[str, Finding]:
    """Reads settings of ModelConfig off a state dict.

    Args:
      tensors: arrays (or anything with shape and dtype) in the original's names, without
        wrapping prefix.

    Returns:
      setting -> finding, for what can be seen. ``intermediate_size`` is the inner size of the
      gated unit, whatever rule it came from.

    Raises:
      CheckpointError: a tensor that every model of the family has is missing, or has
        another number of axes.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in tensors:
            raise CheckpointError(
                f'the tensor {name} is missing; is this a checkpoint of an HRM? It has '
                f'{", ".join(list(tensors)[:4])} ...'
            )
        found = tuple(tensors[name].shape)
        if len(found) != axes:
            raise CheckpointError(f'{name} must have {axes} axes; its shape is {found}.')
        return found

    def see(setting: str, value: Any, evidence: str) -> None:
        findings[setting] = Finding(value, evidence)

    findings: dict[str, Finding] = {}
    if se_rrm.SHARED in tensors or se_rrm.OWN in tensors:
        _see_symbols(tensors, shape, see)
        return findings
    if 'register_tokens' in tensors:
        _see_sic(tensors, shape, see)
        return findings
    name = 'embed_tokens.embedding_weight'
    vocab, dim = shape(name, 2)
    see('vocab_size', vocab, f'{name} has the shape {(vocab, dim)}')
    see('hidden_size', dim, f'{name} has the shape {(vocab, dim)}')

    stacks = _stacks(tensors)
    for level, (count, kind) in stacks.items():
        evidence = f'the last layer is {f"{level}." if level else ""}{kind}.{count - 1}'
        # The only module of a one-module model is called L here, whatever its name there.
        see(f'{level[0] if len(stacks) == 2 else "L"}_layers', count, evidence)
    _see_levels(tensors, stacks, see)
    level, (_, kind) = next(iter(stacks.items()))
    first = f'{level}.{kind}.0.' if level else f'{kind}.0.'
    if kind in _RECURRENT:
        see('block', _RECURRENT[kind], f'there are tensors {first}*')
    else:
        for part, block in _MIXERS.items():
            if any(name.startswith(f'{first}{part}.') for name in tensors):
                see('block', block, f'there are tensors {first}{part}.*')
                break
        else:
            raise CheckpointError(
                f'the block of this checkpoint is unknown: expected tensors {first}self_attn.* or '
                f'{first}mlp_t.*; it has {", ".join(n for n in tensors if n.startswith(first))}.'
            )
        name = f'{first}mlp.gate_up_proj.weight'
        rows = shape(name, 2)
        see('intermediate_size', rows[0] // 2, f'{name} has the shape {rows}')
        if f'{first}mlp.dwconv.weight' in tensors:
            see('gated_unit', 'conv_swiglu', f'there is a tensor {first}mlp.dwconv.weight')
    name = 'puzzle_emb.weights'
    ndim = 0
    if name in tensors:
        ids, ndim = shape(name, 2)
        see('num_puzzle_identifiers', ids, f'{name} has the shape {(ids, ndim)}')
    see('puzzle_emb_ndim', ndim, f'{name} has {ndim} columns' if ndim else f'no tensor {name}')
    name = 'embed_pos.embedding_weight'
    if name in tensors:
        see('pos_encodings', 'learned', f'there is a tensor {name}')
        see('total_len', shape(name, 2)[0], f'{name} has the shape {tensors[name].shape}')
    name = f'{first}mlp_t.down_proj.weight'
    if name in tensors:
        see('total_len', shape(name, 2)[0], f'{name} has the shape {tensors[name].shape}')
    _see_dtype(tensors, see)
    return findings


def _see_dtype(tensors, see) -> None:
    for name in ('H_init', 'L_init', 'init_hidden'):
        if name in tensors:
            dtype = _forward_dtype(tensors, name)
            see('forward_dtype', dtype, f'{name} is stored as {dtype}')


def _see_sic(tensors, shape, see) -> None:
    """What a state dict of jvdillon/sic shows; it has names of its own."""
    name = 'embed_tokens.weight'
    vocab, dim = shape(name, 2)
    see('vocab_size', vocab, f'{name} has the shape {(vocab, dim)}')
    see('hidden_size', dim, f'{name} has the shape {(vocab, dim)}')
    name = 'register_tokens'
    see('register_tokens', shape(name, 2)[0], f'{name} has the shape {shape(name, 2)}')
    matches = [re.match(r'reasoning\.(\d+)\.', name) for name in tensors]
    see('L_layers', 1 + max(int(m[1]) for m in matches if m), 'there are tensors reasoning.*')
    name = 'reasoning.0.attn.down_proj.weight'
    see('block', 'token_mixing', f'there is a tensor {name}')
    see('total_len', shape(name, 2)[0], f'{name} has the shape {shape(name, 2)}')
    name = 'reasoning.0.mlp.down_proj.weight'
    see('intermediate_size', shape(name, 2)[1], f'{name} has the shape {shape(name, 2)}')
    for setting, value in (('levels', 'shared'), ('low_states', 1), ('head_bias', True),
                           ('puzzle_emb_ndim', 0)):  # fmt: skip
        see(setting, value, 'the tensors have the names of jvdillon/sic')
    _see_dtype(tensors, see)


def _see_symbols(tensors, shape, see) -> None:
    """What the tensors of an SE-RRM show: neither its heads, nor always its number of tokens."""
    shared = se_rrm.SHARED in tensors
    name = se_rrm.SHARED if shared else se_rrm.OWN
    there, first = f'there is a tensor {name}', 'L_level.layers.0.'
    _, symbols, _, dim = shape(name, 4)
    see('hidden_size', dim, f'{name} has {dim} channels')
    fixed = {
        'block': 'attention', 'levels': 'single', 'closing_update': False, 'low_states': 1,
        'symbol_exchange': 'attention', 'symbol_input': 'presence', 'shared_symbols': shared,
        'q_head': False, 'q_confidence': True,
    }  # fmt: skip
    for setting, value in fixed.items():
        see(setting, value, there)
    if not shared:
        see('vocab_size', symbols, f'{name} has {symbols} symbols')
    see('L_layers', _stacks(tensors)['L_level'][0], 'numbers of the layers')
    name = f'{first}mlp.gate_up_proj.weight'
    rows = shape(name, 2)
    see('intermediate_size', rows[0] // 2, f'{name} has the shape {rows}')
    slots = shape('add_tokens', 4)[2] if 'add_tokens' in tensors else 0
    see('added_tokens', slots, f'{slots} slots of a tensor add_tokens')
    name = 'puzzle_emb.weights'
    ndim = 0
    if name in tensors:
        ids, ndim = shape(name, 2)
        see('num_puzzle_identifiers', ids, f'{name} has {ids} rows')
        if shared:
            see('vocab_size', ndim - dim, f'{name} has {ndim} columns, {dim} of them channels')
    see('has_puzzle_table', ndim > 0, f'{name} has {ndim} columns')
    if 'pos_embedding' in tensors:
        see('pos_encodings', 'learned', 'there is a tensor pos_embedding')
        see('seq_len', shape('pos_embedding', 4)[2], 'cells of pos_embedding')
    shape('Z_init', 1)  # there at all
    see('forward_dtype', _forward_dtype(tensors, 'Z_init'), 'type of Z_init')


def _forward_dtype(tensors, name: str) -> str:
    dtype = str(np.dtype(tensors[name].dtype))
    return 'float32' if dtype == 'float64' else dtype  # nothing is computed in more


def _stacks(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, str]]:
    """Level -> (layers, name of the list they stand in), H before L."""
    found: dict[str, tuple[int, str]] = {}
    for key in tensors:
        if match := _LAYER.match(key):
            level, kind, index = match[1] or '', match[2], int(match[3])
            found[level] = (max(found.get(level, (0, ''))[0], index + 1), kind)
    if not found:
        raise CheckpointError('there is no tensor L_level.layers.0.*: not a model of this family.')
    return dict(sorted(found.items()))


def _see_levels(tensors, stacks, see) -> None:
    lows = sum(re.fullmatch(r'L\d+_init', name) is not None for name in tensors)
    if len(stacks) == 2:
        see('levels', 'separate', 'there are tensors H_level.* and L_level.*')
    elif lows or {'H_init', 'L_init'} <= set(tensors):
        see('levels', 'shared', 'two states, but only one module L_level')
    elif 'L_level' in stacks and not {'H_init', 'L_init'} & set(tensors):
        see('levels', 'shared', 'one module L_level, and no initial states')
        see('initial_state', 'random', 'there is no tensor H_init and none L_init')
    else:
        see('levels', 'single', 'one state and one module')
        module = next(iter(stacks)) or 'layers'
        see('closing_update', module == 'L_level', f'the one module is {module}')
    see('low_states', lows or 1, f'there are {lows} tensors L1_init, L2_init ...')


def complete_model(
    stated: Mapping[str, Any], findings: Mapping[str, Finding], source: str
) -> ModelConfig:
    """Joins what a configuration states with what the tensors show.

    Args:
      stated: settings of ModelConfig that the configuration really gives.
      findings: result of ``infer_model``.
      source: name of the configuration, for messages.

    Raises:
      CheckpointError: both know a setting and differ, or neither knows one that matters.
      ConfigError: the settings contradict each other.
    """
    values = dict(stated)
    for setting, finding in findings.items():
        if setting in ('intermediate_size', 'total_len'):
            continue
        if setting == 'has_puzzle_table':  # how wide its rows are does not depend on the number
            if bool(values.get('puzzle_emb_ndim', finding.value)) != finding.value:
                raise CheckpointError(
                    f'{source} states puzzle_emb_ndim={values["puzzle_emb_ndim"]}, but the '
                    f'checkpoint differs: {finding.evidence}.'
                )
            values['puzzle_emb_ndim'] = int(finding.value) * values.get('hidden_size', 1)
            continue
        if setting == 'vocab_size' and values.get(setting) == 0:
            values.pop(setting)
        if setting == 'forward_dtype':
            # The compute type is a choice at load time; the file only has a habit.
            values.setdefault(setting, finding.value)
            continue
        if values.setdefault(setting, finding.value) != finding.value:
            raise CheckpointError(
                f'{source} states {setting}={values[setting]!r}, but the checkpoint has '
                f'{finding.value!r}: {finding.evidence}. Use the configuration that the '
                f'checkpoint was trained with.'
            )
    recurrent = findings['block'].value in _RECURRENT.values()
    if findings['levels'].value != 'separate':
        values.setdefault('H_layers', 0)
    if recurrent:
        # Fixed in this model: one update of each level, back-propagated as a whole.
        values |= {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'}
        values.setdefault('pos_encodings', 'none')
    if recurrent or findings['block'].value == 'token_mixing':
        values.setdefault('num_heads', 1)
    if 'learned' in values.get('pos_encodings', '') and 'pos_encodings' not in findings:
        raise CheckpointError(
            f'{source} states pos_encodings=learned, but the tensor embed_pos.embedding_weight is '
            f'missing.'
        )
    if 'symbol_exchange' in findings and not values.get('vocab_size'):
        raise CheckpointError(
            f'symbols that share their weights do not show how many there are, and {source} does '
            f'not state it: set vocab_size there (11 for 9x9 Sudokus, 12 for ARC).'
        )
    if 'intermediate_size' in findings:
        values = _with_inner_size(values, findings['intermediate_size'], source)
    else:
        values['intermediate_size'] = 0
    values = _with_seq_len(values, findings.get('total_len'), source)
    # Nothing in the tensors shows these, and a wrong value gives wrong answers without an error.
    wanted = ['num_heads', 'H_cycles', 'L_cycles']
    if 'symbol_exchange' in findings:
        wanted += ['head_size', 'symbol_heads', 'symbol_head_size']
    lacking = [n for n in wanted if n not in values]
    if 'initial_state' in findings:
        draws = ('update_rate', 'update_noise', 'high_start_std', 'low_start_std')
        lacking += [name for name in draws if name not in values]
    if 'register_tokens' in findings and 'gated_unit' not in values:
        lacking.append('gated_unit')
    if 'pos_encodings' not in values:
        lacking.append('pos_encodings (rope or none)')
    if lacking:
        nor = 'there is no' if source == NO_CONFIGURATION else f'{source} does not state it in the'
        raise CheckpointError(
            f'the tensors do not show {", ".join(lacking)}, and {nor} configuration. Give the '
            f'all_config.yaml of the training run, or write these settings into one, with '
            f'--config; or take those of a published recipe with --preset.'
        )
    return ModelConfig(**values)


def _with_inner_size(values: dict[str, Any], found: Finding, source: str) -> dict[str, Any]:
    names = ('hidden_size', 'expansion', 'intermediate_size', 'round_mlp')
    given = {name: values[name] for name in names if values.get(name) is not None}
    plain = {'intermediate_size': 0, 'num_heads': 1, 'pos_encodings': 'none'}
    by_rule = ModelConfig(**given | plain)
    wanted = given.get('intermediate_size') or by_rule.mlp_dim
    stated = given.get('intermediate_size') or 'expansion' in given
    if stated and wanted != found.value:
        raise CheckpointError(
            f'{source} gives the gated units an inner size of {wanted} (expansion '
            f'{by_rule.expansion}), but the checkpoint has {found.value}: {found.evidence}.'
        )
    # 0 where the rule gives the same, so that equal models have equal configurations.
    return values | {'intermediate_size': 0 if by_rule.mlp_dim == found.value else found.value}


def _with_seq_len(values: dict[str, Any], found: Finding | None, source: str) -> dict[str, Any]:
    if found is None:
        return values
    registers = values.get('register_tokens')
    prefix = (
        registers
        or values.get('puzzle_emb_len')
        or -(-values['puzzle_emb_ndim'] // values['hidden_size'])
    )
    seq_len = found.value - prefix
    if values.get('seq_len') not in (None, 0, seq_len):
        raise CheckpointError(
            f'{source} states seq_len={values["seq_len"]}, but the checkpoint has {seq_len} cells '
            f'and {prefix} slots of the puzzle prefix: {found.evidence}.'
        )
    return values | {'seq_len': seq_len}


# How a model is computed, drawn or regularised, not what it computes; and the sizes of heads and
# gated units, which are compared as such.
_FREE = {
    'attention', 'remat', 'unroll_cycles', 'initializer', 'dropout', 'attention_dropout',
    'expansion', 'intermediate_size', 'round_mlp', 'head_size',
}  # fmt: skip


def differences(model: ModelConfig, other: ModelConfig) -> list[str]:
    """Lists the settings in which two models that fit the same tensors compute differently."""
    free = set(_FREE)
    if model.levels != 'separate':
        free.add('H_layers')  # never read
    if model.block != 'attention':
        free |= {'num_heads', 'rope_theta'}
    if model.is_recurrent:
        free |= {'mlp_dim', 'pos_encodings', 'rms_norm_eps'}
    if not model.has_puzzle_table:
        free.add('num_puzzle_identifiers')  # without a table it is not stored everywhere
    names = [field.name for field in dataclasses.fields(model)] + ['mlp_dim']
    if model.head_size or other.head_size:
        names.append('head_dim')
    return [
        f'model.{name}: {getattr(model, name)!r} and {getattr(other, name)!r}'
        for name in names
        if name not in free and getattr(model, name) != getattr(other, name)
    ]
