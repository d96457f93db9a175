"""``HrmConfig``: the configuration keys of the transformers-style HRM, against ours.

Source: the HRM contribution to huggingface/transformers and the model cards
zbloss/HRM-sudoku-extreme and zbloss/HRM-maze-30x30-hard.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
from typing import Any

from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.files import replacing
from hrm_jax.interop.original_config import Settings, read_mapping

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
_FLOATS = ('expansion', 'rope_theta', 'rms_norm_eps', 'halt_exploration_prob')


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
        self.h_layers = self.num_hidden_layers if self.h_layers is None else self.h_layers
        self.l_layers = self.num_hidden_layers if self.l_layers is None else self.l_layers
        if self.intermediate_size is None:
            self.intermediate_size = int(self.hidden_size * self.expansion)
        self.dtype = str(self.dtype).removeprefix('torch.')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'HrmConfig':
        """Builds the configuration from parsed JSON; ``torch_dtype`` is the older ``dtype``.

        Raises:
          CheckpointError: ``model_type`` is given and not ``hrm``.
        """
        values = dict(values)
        if values.pop('model_type', 'hrm') != 'hrm':
            raise CheckpointError('config.json must have the model_type hrm.')
        older = values.pop('torch_dtype', None)
        if older is not None:
            values.setdefault('dtype', older)
        known = {field.name for field in dataclasses.fields(cls)} - {'extra'}
        extra = {name: value for name, value in values.items() if name not in known}
        given = {name: value for name, value in values.items() if name in known}
        for name in _FLOATS:
            if name in given:
                given[name] = float(given[name])
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


def _rest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our sections, with the keys that transformers has for them taken from there."""
    ours = values.get('hrm_jax') or {}
    rest = {name: dict(v) if isinstance(v, Mapping) else v for name, v in ours.items()}
    rest.setdefault('model', {})
    act = rest.setdefault('act', {})
    for name in ('halt_max_steps', 'halt_exploration_prob'):
        if name in values:
            act[name] = float(values[name]) if name in _FLOATS else values[name]
    return rest


def settings(values: Mapping[str, Any], source: str) -> Settings:
    """Translates a parsed config.json for a comparison with the tensors.

    ``transformers`` leaves out keys that have their default value, so an absent key means that
    default; but for what the tensors show, they decide.
    """
    config = HrmConfig.from_dict(values)
    rest = _rest(config.to_dict())
    model = rest.pop('model')
    stated = set(values) | {'num_attention_heads', 'h_cycles', 'l_cycles', 'pos_encodings'}
    stated |= {'max_position_embeddings', 'rope_theta', 'rms_norm_eps'}
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
