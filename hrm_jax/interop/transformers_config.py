"""``HrmConfig``: the configuration keys of the transformers-style HRM, against ours.

Source: the HRM contribution to huggingface/transformers and the model cards
zbloss/HRM-sudoku-extreme and zbloss/HRM-maze-30x30-hard.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import typing
from typing import Any

from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.files import replacing
from hrm_jax.interop.original_config import Settings, read_mapping, typed

FILE_NAME = 'config.json'
# Key there -> setting of ModelConfig.
_MODEL_KEYS = {
    'vocab_size': 'vocab_size',
    'hidden_size': 'hidden_size',
    'h_layers': 'H_layers',
    'l_layers': 'L_layers',
    'num_attention_heads': 'num_heads',
    'intermediate_size': 'intermediate_size',
    'max_position_embeddings': 'seq_len',
    'h_cycles': 'H_cycles',
    'l_cycles': 'L_cycles',
    'pos_encodings': 'pos_encodings',
    'rope_theta': 'rope_theta',
    'rms_norm_eps': 'rms_norm_eps',
    'puzzle_emb_ndim': 'puzzle_emb_ndim',
    'num_puzzle_identifiers': 'num_puzzle_identifiers',
    'dtype': 'forward_dtype',
}
# Keys of every configuration of transformers that change no output of this model.
_HARMLESS = {
    'add_cross_attention', 'architectures', 'attn_implementation', 'auto_map', 'bad_words_ids',
    'begin_suppress_tokens', 'bos_token_id', 'chunk_size_feed_forward',
    'cross_attention_hidden_size', 'decoder_start_token_id', 'diversity_penalty', 'do_sample',
    'early_stopping', 'encoder_no_repeat_ngram_size', 'eos_token_id',
    'exponential_decay_length_penalty', 'finetuning_task', 'forced_bos_token_id',
    'forced_eos_token_id', 'id2label', 'is_decoder', 'is_encoder_decoder', 'label2id',
    'length_penalty', 'max_length', 'min_length', 'no_repeat_ngram_size', 'num_beam_groups',
    'num_beams', 'num_return_sequences', 'output_attentions', 'output_hidden_states',
    'output_scores', 'pad_token_id', 'prefix', 'problem_type', 'pruned_heads',
    'remove_invalid_values', 'repetition_penalty', 'return_dict', 'return_dict_in_generate',
    'sep_token_id', 'suppress_tokens', 'task_specific_params', 'temperature', 'tf_legacy_loss',
    'tie_encoder_decoder', 'tokenizer_class', 'top_k', 'top_p', 'torchscript',
    'transformers_version', 'typical_p', 'use_bfloat16',
}  # fmt: skip
# Values that other keys may have because they change nothing then.
_NEUTRAL = {
    'hidden_act': ('silu', 'swish', 'swiglu'),
    'partial_rotary_factor': (1, 1.0),
    'attention_dropout': (0, 0.0),
    'hidden_dropout': (0, 0.0),
}


@dataclasses.dataclass
class HrmConfig:
    """Configuration of ``HrmModel`` and ``HrmForCausalLM``, keys and defaults as over there.

    ``h_layers`` and ``l_layers`` default to ``num_hidden_layers``; ``intermediate_size`` to
    ``int(hidden_size * expansion)``, which is not the original's rule: a converted original
    checkpoint of hidden size 512 carries 1536. ``max_position_embeddings`` is the number of
    cells of a puzzle, without the puzzle prefix. ``dtype`` is the type the model computes in.

    Attributes:
      hrm_jax: our whole configuration, where the model came from here; the keys above win
        where they differ. It is what keeps settings that transformers has no key for (one
        shared module, other halting rules, the optimizer).
      extra: keys that are kept but not used (``architectures``, ``transformers_version`` ...).
    """

    vocab_size: int = 11
    hidden_size: int = 512
    num_hidden_layers: int = 4
    h_layers: int | None = None
    l_layers: int | None = None
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    expansion: float = 4.0
    max_position_embeddings: int = 81
    h_cycles: int = 2
    l_cycles: int = 2
    pos_encodings: str = 'rope'
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    puzzle_emb_ndim: int = 0
    num_puzzle_identifiers: int = 1
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1
    dtype: str = 'bfloat16'
    initializer_range: float = 0.02
    use_cache: bool = False
    hrm_jax: dict[str, Any] | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    model_type = 'hrm'

    def __post_init__(self):
        for name, hint in typing.get_type_hints(type(self)).items():
            kinds = typing.get_args(hint) or (hint,)  # int, or (int, None)
            optional = type(None) in kinds and getattr(self, name) is None
            if name not in ('extra', 'hrm_jax') and not optional:
                setattr(self, name, typed(vars(self), name, kinds[0], FILE_NAME))
        self.h_layers = self.num_hidden_layers if self.h_layers is None else self.h_layers
        self.l_layers = self.num_hidden_layers if self.l_layers is None else self.l_layers
        if self.intermediate_size is None:
            self.intermediate_size = int(self.hidden_size * self.expansion)
        self.dtype = self.dtype.removeprefix('torch.')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'HrmConfig':
        """Builds the configuration from parsed JSON; ``torch_dtype`` is the older ``dtype``.

        Keys that are null count as absent. ``rope_theta`` may stand in ``rope_parameters``, where
        transformers 5 writes it.

        Raises:
          CheckpointError: ``model_type`` is given and not ``hrm``, a value has another type than
            its key, or a key that may change the outputs is not known here.
        """
        values = {name: value for name, value in values.items() if value is not None}
        if values.pop('model_type', 'hrm') != 'hrm':
            raise CheckpointError(f'{FILE_NAME} must have the model_type hrm.')
        older = values.pop('torch_dtype', None)
        if older is not None:
            values.setdefault('dtype', older)
        values = _with_rope_theta(values)
        known = {field.name for field in dataclasses.fields(cls)} - {'extra'}
        extra = {name: value for name, value in values.items() if name not in known}
        unknown = [
            name
            for name, value in extra.items()
            if name not in _HARMLESS
            and not name.startswith('_')
            and value not in (False, '', [], {}, *_NEUTRAL.get(name, ()))
        ]
        if unknown:
            listed = ', '.join(f'{name}={extra[name]!r:.40}' for name in unknown)
            raise CheckpointError(
                f'{FILE_NAME}: {listed} may change what the model computes, and is not known here. '
                f'Take it out of the file (or a copy for --config) if it does not.'
            )
        given = {name: value for name, value in values.items() if name in known}
        if not isinstance(given.get('hrm_jax', {}), Mapping):
            raise CheckpointError(f'{FILE_NAME}: hrm_jax must be an object.')
        return cls(**given, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        extra = values.pop('extra')
        if values['hrm_jax'] is None:
            del values['hrm_jax']
        return {'model_type': self.model_type, **extra, **values}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + '\n'

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes ``config.json`` into the folder."""
        with (
            replacing(os.path.join(folder, FILE_NAME)) as beside,
            open(beside, 'w', encoding='utf-8') as file,
        ):
            file.write(self.to_json_string())

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | os.PathLike) -> 'HrmConfig':
        """Reads ``config.json`` of a folder (or the file itself), or of a hub id."""
        from hrm_jax.interop import hub

        path = hub.local_path(path_or_hub_id)
        if os.path.isdir(path):
            path = os.path.join(path, FILE_NAME)
        return cls.from_dict(read_mapping(path))

    @classmethod
    def from_experiment(cls, config: ExperimentConfig) -> 'HrmConfig':
        """Expresses our configuration in these keys, and keeps it whole beside them."""
        model = config.model
        values = {there: getattr(model, ours) for there, ours in _MODEL_KEYS.items()}
        values |= {
            'num_hidden_layers': model.L_layers,
            'intermediate_size': model.mlp_dim,
            'expansion': model.expansion,
            'num_puzzle_identifiers': max(model.num_puzzle_identifiers, 1),
            'halt_max_steps': config.act.halt_max_steps,
            'halt_exploration_prob': config.act.halt_exploration_prob,
        }
        return cls(**values, hrm_jax=config.to_dict())

    def to_experiment(self) -> ExperimentConfig:
        """Returns our configuration of this model.

        Raises:
          ConfigError: the settings contradict each other.
        """
        rest = _rest(self.to_dict())
        model = rest.pop('model') | {
            ours: getattr(self, there) for there, ours in _MODEL_KEYS.items()
        }
        model['expansion'] = self.expansion
        rule = ModelConfig(**model | {'intermediate_size': 0}).mlp_dim
        if model['intermediate_size'] == rule:
            model['intermediate_size'] = 0
        if model.get('levels', 'separate') != 'separate':
            model['H_layers'] = 0
        return ExperimentConfig.from_dict(rest | {'model': model})


def _with_rope_theta(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the rotary base from where the versions of transformers write it.

    Raises:
      CheckpointError: two places differ, or the angles are scaled, which is not known here.
    """
    values = dict(values)
    found = {'rope_theta': values['rope_theta']} if 'rope_theta' in values else {}
    for place in ('rope_parameters', 'rope_scaling'):
        inner = values.pop(place, None)
        if not inner:
            continue
        if not isinstance(inner, Mapping):
            raise CheckpointError(f'{FILE_NAME}: {place} must be an object; got {inner!r:.60}.')
        inner = {name: value for name, value in inner.items() if value is not None}
        kinds = [inner.pop(name) for name in ('rope_type', 'type') if name in inner]
        if 'rope_theta' in inner:
            found[place] = inner.pop('rope_theta')
        others = {n: v for n, v in inner.items() if (n, v) != ('partial_rotary_factor', 1)}
        if any(kind != 'default' for kind in kinds) or others:
            raise CheckpointError(
                f'{FILE_NAME}: {place}={dict(zip(["rope_type"], kinds, strict=False)) | inner} '
                f'scales the rotary angles, which is not known here; only the type default is.'
            )
    if len(set(map(str, map(_as_float, found.values())))) > 1:
        listed = ', '.join(f'{place}: {value}' for place, value in found.items())
        raise CheckpointError(f'{FILE_NAME}: the rotary base is stated twice ({listed}).')
    if found:
        values['rope_theta'] = next(iter(found.values()))
    return values


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) else value


def _rest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our sections, with the keys that transformers has for them taken from there."""
    ours = values.get('hrm_jax') or {}
    rest = {name: dict(v) if isinstance(v, Mapping) else v for name, v in ours.items()}
    rest.setdefault('model', {})
    act = rest.setdefault('act', {})
    for name in ('halt_max_steps', 'halt_exploration_prob'):
        if name in values:
            act[name] = values[name]
    return rest


def settings(values: Mapping[str, Any], source: str) -> Settings:
    """Translates a parsed config.json for a comparison with the tensors.

    An absent key means the default of the class there; but where the tensors show it, they decide,
    and the length of a puzzle and the number of heads must be stated.
    """
    values = {name: value for name, value in values.items() if value is not None}
    config = HrmConfig.from_dict(values)
    rest = _rest(config.to_dict())
    model = rest.pop('model')
    stated = set(values) | {'h_cycles', 'l_cycles', 'pos_encodings', 'rope_theta', 'rms_norm_eps'}
    if 'torch_dtype' in values:
        stated.add('dtype')
    for there, ours in _MODEL_KEYS.items():
        if there in stated:
            model[ours] = getattr(config, there)
    if 'intermediate_size' not in stated:
        # Written without it: converted by hand, or of the default size; the tensors know.
        model.pop('intermediate_size', None)
    elif not config.hrm_jax:
        model['expansion'] = config.expansion
    if model.get('levels', 'separate') != 'separate':
        model['H_layers'] = 0
    return Settings(model, rest, source)
