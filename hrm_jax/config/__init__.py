"""Settings: frozen dataclasses with their checks, and how files and flags become them."""

from hrm_jax.config.lattice import LatticeConfig
from hrm_jax.config.mesh import MeshConfig
from hrm_jax.config.model import ModelConfig
from hrm_jax.config.rollouts import RolloutConfig
from hrm_jax.config.sections import (
    ActConfig,
    CheckpointConfig,
    DataConfig,
    EarlyStoppingConfig,
    EvalConfig,
    ExperimentConfig,
    LoggingConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    default_config_dict,
)

__all__ = [
    'ActConfig', 'CheckpointConfig', 'DataConfig', 'EarlyStoppingConfig', 'EvalConfig',
    'ExperimentConfig', 'LatticeConfig', 'LoggingConfig', 'LossConfig', 'MeshConfig',
    'ModelConfig', 'OptimizerConfig', 'RolloutConfig', 'TrainConfig', 'default_config_dict',
]  # fmt: skip
