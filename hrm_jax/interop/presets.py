"""Published recipes as the configuration of weights that come without one.

Cycles, damping, noise, starts and the gated unit do not show in tensors. They are asked for: the
name of a recipe stands for the values of its shipped experiment, minus what the tensors do show.
"""

from collections.abc import Mapping
import importlib

from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.config.checks import require_choice
from hrm_jax.errors import CheckpointError
from hrm_jax.interop.architecture import Finding
from hrm_jax.interop.original_config import Settings

# Name of a recipe -> the shipped experiment with its values.
PRESETS = {
    'cgar': 'sudoku_cgar',
    'eqr': 'sudoku_eqr',
    'eqr_maze': 'maze_eqr',
    'sic': 'sudoku_sic',
    'urm': 'sudoku_urm',
}
# Known from tensors and data set alone.
_SIZES = ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'intermediate_size', 'expansion',
          'round_mlp', 'forward_dtype')  # fmt: skip


def refuse(preset: str, source: str) -> None:
    """Raises CheckpointError where a preset is given for weights that have a configuration."""
    if preset and source:
        raise CheckpointError(
            f'{source} states the configuration of the weights; leave out --preset {preset}.'
        )


def settings(preset: str, findings: Mapping[str, Finding]) -> Settings:
    """What a recipe states of a model that the tensors do not show.

    Args:
      preset: one of ``PRESETS``.
      findings: what the tensors show (``architecture.infer_model``).

    Raises:
      ConfigError: there is no such recipe.
      CheckpointError: the tensors are of another kind of model.
    """
    require_choice('preset', preset, tuple(PRESETS))
    name = PRESETS[preset]
    with shipped.importable(shipped.find(name)):
        values = importlib.import_module(f'configs.{name}').get_config()
    stated = ExperimentConfig.from_dict(values).to_dict()
    model = stated.pop('model')
    wanted = {name: model[name] for name in ('levels', 'block', 'initial_state', 'register_tokens')}
    # URM's is the only gated unit with tensors of its own.
    wanted['gated_unit'] = 'conv_swiglu' if model['gated_unit'] == 'conv_swiglu' else None
    absent = {'initial_state': 'fixed', 'register_tokens': 0}
    for setting, value in wanted.items():
        found = findings[setting].value if setting in findings else absent.get(setting)
        if found != value:
            raise CheckpointError(
                f'--preset {preset} is a recipe with {setting}={model[setting]!r}, but the '
                f'checkpoint has {found!r}. Use the preset that the weights were trained with, or '
                f'--config.'
            )
    unseen = {key: value for key, value in model.items() if key not in (*findings, *_SIZES)}
    return Settings(unseen, stated, f'--preset {preset}')
