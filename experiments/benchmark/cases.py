"""Benchmark cases: a configuration of configs/ at a batch size, dtype and attention."""

import dataclasses
import importlib
import json
import sys
import types
from typing import Any

import numpy as np

from experiments import dataset_sizes
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError
from hrm_jax.run import cpu_devices, kept_memory
from hrm_jax.types import Batch

# Sizes of these data sets depend on their programs and puzzles; those of a typical one do here.
SIZES = dataset_sizes.KNOWN | {'data/lisp': (100, 256, 1), 'data/custom': (11, 81, 1)}
QUICK = {'hidden_size': 64, 'num_heads': 4, 'H_layers': 1, 'L_layers': 1, 'puzzle_emb_ndim': 64,
         'num_puzzle_identifiers': 10}  # fmt: skip
# Sizes of models for --size, each beside an original: configuration, rows, settings.
SIZES_OF_MODELS = {
    'tiny': (  # the quickstart, as HRM can be trained on a CPU
        ('quickstart', 32, ('optimizer.ema_decay=0', 'loss.loss_type=stablemax_cross_entropy',
                            'model.intermediate_size=0')),
    ),
    'small': (  # krychu/hrm on 400 cells; TinyRecursiveModels with 128 channels
        ('pathfinding_hl', 8, ()),
        ('sudoku_trm_mlp', 16, ('model.hidden_size=128', 'model.puzzle_emb_ndim=128')),
    ),
    'full': (('sudoku_extreme_1k', 8, ()),),  # HRM with 27 million parameters
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration to measure, with what was asked to be different in it."""

    name: str
    config: ExperimentConfig

    @property
    def rows(self) -> int:
        return self.config.train.global_batch_size

    def label(self) -> dict[str, Any]:
        model = self.config.model
        return {'config': self.name, 'positions': model.total_len, 'rows': self.rows,
                'dtype': model.forward_dtype, 'attention': model.attention}  # fmt: skip


class _Settings(dict):
    # As much of ml_collections.ConfigDict as the files of configs/ use.
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__

    def __init__(self, values: dict[str, Any]):
        super().__init__({k: _Settings(v) if isinstance(v, dict) else v for k, v in values.items()})


def _get_config(name: str) -> Any:
    try:
        import ml_collections  # noqa: F401
    except ImportError:  # a bare machine
        stand_in = types.ModuleType('ml_collections')
        stand_in.config_dict = types.SimpleNamespace(ConfigDict=_Settings)
        sys.modules['ml_collections'] = stand_in
    try:
        return importlib.import_module(f'configs.{name}').get_config()
    except ModuleNotFoundError as error:
        if error.name != f'configs.{name}':
            raise
        raise ConfigError(f'there is no configs/{name}.py; see the files of configs/.') from None


def load(
    name: str,
    rows: int,
    dtype: str,
    attention: str,
    act_steps: int = 0,
    quick: bool = False,
    settings: tuple[str, ...] = (),
) -> Case:
    """Makes a case.

    Args:
      name: a file of configs/, without the ending.
      rows: batch size; 0: the configuration's.
      dtype: compute dtype; '': the configuration's.
      attention: implementation of attention.
      act_steps: ACT steps of evaluation and inference; 0: the configuration's.
      quick: a model so small that a program takes seconds, compiling included.
      settings: ``model.remat=True`` and the like, over all the rest.

    Raises:
      ConfigError: there is no such configuration, a setting does not exist or fit, or the data
        set is not known.
    """
    config = _get_config(name)
    model = config.model
    model.attention = attention
    model.forward_dtype = dtype or model.forward_dtype
    if quick:
        for key, value in QUICK.items():
            if key != 'puzzle_emb_ndim' or model.puzzle_emb_ndim:
                model[key] = value
    config.train.global_batch_size = rows or config.train.global_batch_size
    config.eval.global_batch_size = 0
    config.eval.depth_multiples = ()
    config.eval.halt_max_steps = act_steps or config.eval.halt_max_steps
    for setting in settings:
        path, _, text = setting.partition('=')
        *sections, key = path.split('.')
        place = config
        for section in sections:
            place = place.get(section) if hasattr(place, 'get') else None
        ConfigError.require(
            hasattr(place, 'get'), f'--set must name a setting such as model.remat; got {path}.'
        )
        try:
            place[key] = json.loads({'True': 'true', 'False': 'false'}.get(text, text))
        except json.JSONDecodeError:
            place[key] = text
    return Case(name, dataset_sizes.fill_in(ExperimentConfig.from_dict(config), SIZES))


def batch(case: Case, rows: int = 0, seed: int = 0) -> Batch:
    """Random puzzles of the case's shapes, in numpy."""
    model = case.config.model
    rng = np.random.default_rng(seed)
    shape = (rows or case.rows, model.seq_len)
    inputs, labels = (rng.integers(1, model.vocab_size, shape, np.int32) for _ in range(2))
    ids = rng.integers(0, min(model.num_puzzle_identifiers, 1000), shape[0], np.int32)
    return Batch(inputs, labels, ids)


def set_up(config: ExperimentConfig, program: str) -> None:
    """Prepares a CPU as our commands do for this program; call it before JAX's backend starts."""
    kept_memory.keep(config)
    if program == 'eval step':
        cpu_devices.apply(cpu_devices.choose(config, training=False))


def set_up_alike(config: ExperimentConfig, programs: list[str]) -> list[list[str]]:
    """The programs in groups that one process can measure: evaluations have their own devices."""
    others = [program for program in programs if program != 'eval step']
    if 0 < len(others) < len(programs) and cpu_devices.choose(config, training=False).number > 1:
        return [others, ['eval step']]
    return [programs]
