"""``HrmModel`` and ``HrmForCausalLM``: the model behind the interface of transformers.

transformers has no Flax classes any more, so these live here under the same names. An object
holds the Flax module, which itself has no weights, and the weights; everything it does is a
call of the pure functions that training uses.

Two things are different from the HRM contribution to transformers on purpose, because they are
wrong for this model there: the loss (next-token cross entropy with shifted labels; the answer
to a cell belongs into the same cell, so nothing is shifted here) and ``generate`` (it appends
tokens to the question; here it fills the board).
"""

from collections.abc import Mapping
import dataclasses
import os
import tempfile
from typing import Any
import warnings

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from hrm_jax import act, partitioning, train_state
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError
from hrm_jax.interop import act_calls, formats, hub
from hrm_jax.interop.act_calls import HrmGeneration, HrmOutput
from hrm_jax.interop.transformers_config import HrmConfig
from hrm_jax.model import hrm, starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Carry, Weights


class HrmModel:
    """The recursive core with its ACT state: one call is one ACT step.

    Attributes:
      config: HrmConfig.
      experiment: the same as our ExperimentConfig.
      module: the Flax module.
      weights: params (float32), constants and puzzle table.
    """

    prefix = 'inner.'

    def __init__(self, config: HrmConfig | ExperimentConfig, seed: int = 0):
        """Makes a model with new weights, drawn from ``seed``.

        Raises:
          ConfigError: settings contradict each other, or a size is 0.
        """
        if isinstance(config, ExperimentConfig):
            config = HrmConfig.from_experiment(config)
        experiment = config.to_experiment()
        model = experiment.model
        init = jax.jit(lambda key: nn.unbox(train_state.init_variables(experiment, key)))
        variables = init(jax.random.key(seed))
        table = None
        if model.has_puzzle_table:
            table = jnp.zeros((model.num_puzzle_identifiers, model.puzzle_row_size), jnp.float32)
        self._set(
            SavedModel(
                0,
                Weights(variables['params'], variables['constants'], table),
                ema=None,
                config=experiment,
                meta={},
            )
        )

    def _set(self, saved: SavedModel) -> None:
        model = saved.config.model
        ConfigError.require(
            not model.flow and model.chains == 1,
            'a looped flow (model.flow) and several chains (model.chains) have another state in '
            'training than at inference, which a carry of HrmModel cannot be both. Use Solver, or '
            'hrm_jax.model.hrm.act_step.',
        )
        self.experiment = saved.config
        self.config = HrmConfig.from_experiment(saved.config)
        self.module = hrm.HRM(saved.config.model)
        self.weights = saved.weights
        self._step, self._meta = saved.step, saved.meta

    @classmethod
    def from_saved(cls, saved: SavedModel) -> 'HrmModel':
        """Wraps a model that was loaded already (formats.load)."""
        model = cls.__new__(cls)
        model._set(saved)
        return model

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike,
        *,
        config: str = '',
        seq_len: int = 0,
        dtype: str = '',
        param_dtype: str = 'float32',
        mesh: Mesh | None = None,
        num_puzzle_identifiers: int = 0,
        puzzle_table: str = 'error',
        revision: str | None = None,
    ) -> 'HrmModel':
        """Loads a model from any format, local or on the hub.

        Args:
          path_or_hub_id: a folder with config.json and model.safetensors, an original's
            ``step_N``, a checkpoint or run of ours, or ``owner/name`` on the hub.
          config: configuration file in place of the one beside the weights.
          seq_len: cells of a puzzle, where nothing else states it.
          dtype: type to compute in; empty: the checkpoint's.
          param_dtype: type to hold the parameters in. Every layer casts its weights to the
            compute type, so with both ``bfloat16`` the outputs are those of float32 parameters
            and the memory is half.
          mesh: devices to put the weights on; None: the default device.
          num_puzzle_identifiers: rows that the puzzle table shall have, for new puzzles; 0: as
            it is.
          puzzle_table: what to do when that is another number: ``error``, ``mean``, ``zeros``
            or ``overlap`` (hrm_jax/checkpoint/compatible.py).
          revision: branch, tag or commit on the hub.

        Raises:
          ValueError, OSError: see ``formats.load``; the message states what to do.
        """
        saved = formats.load(
            path_or_hub_id, config=config, seq_len=seq_len, forward_dtype=dtype, revision=revision
        )
        if num_puzzle_identifiers:
            saved = formats.with_puzzle_rows(saved, num_puzzle_identifiers, puzzle_table)
        where = partitioning.replicated(mesh) if mesh is not None else None

        def put(tree, dtype=None):
            return jax.tree.map(
                lambda x: jax.device_put(np.asarray(x, dtype and jnp.dtype(dtype)), where), tree
            )

        weights = saved.inference_weights()
        weights = Weights(
            put(weights.params, param_dtype),
            put(weights.constants),
            put(weights.puzzle_table, param_dtype),
        )
        return cls.from_saved(dataclasses.replace(saved, weights=weights, ema=None))

    def saved(self) -> SavedModel:
        """The model as ``formats.save`` takes it, parameters in float32."""

        def host(tree):
            return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)

        weights = Weights(
            host(self.weights.params),
            jax.tree.map(np.asarray, self.weights.constants),
            host(self.weights.puzzle_table),
        )
        return SavedModel(self._step, weights, None, self.experiment, dict(self._meta))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes config.json, model.safetensors and a model card; replaces earlier ones."""
        formats.save(self.saved(), folder, 'huggingface', prefix=self.prefix, overwrite=True)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what ``save_pretrained`` writes; returns the address of the commit.

        Args:
          repo_id: ``owner/name``.
          **options: see ``hub.upload_folder`` (private, token, commit_message ...).
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload_folder(folder, repo_id, **options)

    def initial_carry(self, batch: Batch | Mapping[str, Any] | jax.Array) -> Carry:
        """Carry with every row halted, so that the first call replaces all of it.

        Args:
          batch: a Batch, a mapping with ``input_ids``, or input ids [B, S].
        """
        if not isinstance(batch, Batch):
            ids = batch['input_ids'] if isinstance(batch, Mapping) else batch
            batch = self._batch(ids, None, None)
        rows = batch.inputs.shape[0]
        return act.initial_carry(starts.empty_latent(self.experiment.model, rows), batch)

    def __call__(
        self,
        input_ids: Any,
        puzzle_identifiers: Any = None,
        labels: Any = None,
        carry: Carry | None = None,
        *,
        train: bool = False,
        rng: jax.Array | None = None,
        params: Any = None,
        puzzle_table: jax.Array | None = None,
        output_hidden_states: bool = False,
    ) -> HrmOutput:
        """Runs one ACT step.

        Args:
          input_ids: int [B, S]; shorter rows are padded with 0, longer ones truncated (with a
            warning), as over there.
          puzzle_identifiers: int [B], rows of the puzzle table; None: 0.
          labels: int [B, S], the answer to each cell (not shifted); -100 where none counts.
          carry: from the previous call, whose unfinished rows continue with *their* puzzle and
            ignore the new one; None: every row begins.
          train: halts by the Q values, with exploration; and the loss includes the target of
            q_continue, which takes one more pass.
          rng: key of the exploration; needed with ``train``.
          params, puzzle_table: in place of the model's own, to differentiate with respect to.
          output_hidden_states: returns (embeddings, z_H, z_L).

        Returns:
          HrmOutput. The loss is the ACT loss of the original (the cells' loss averaged over
          each row, plus half the Q losses), summed over rows and divided by their number.
        """
        if train and rng is None:
            raise ValueError('train=True explores and needs a key: pass rng=jax.random.key(...).')
        batch = self._batch(input_ids, puzzle_identifiers, labels)
        if carry is None:
            carry = self.initial_carry(batch)
        weights = self.weights
        if params is not None:
            weights = weights.replace(params=params)
        if puzzle_table is not None:
            weights = weights.replace(puzzle_table=puzzle_table)
        kind = (train, labels is not None, output_hidden_states)
        return act_calls.act_step(self.experiment, kind, weights, carry, batch, rng)

    def _batch(self, input_ids: Any, puzzle_identifiers: Any, labels: Any) -> Batch:
        cells = self.experiment.model.seq_len
        inputs = jnp.asarray(input_ids, jnp.int32)
        if inputs.ndim != 2:
            raise ValueError(f'input_ids must have the axes [boards, cells]; got {inputs.shape}.')
        if inputs.shape[1] > cells:
            warnings.warn(
                f'input_ids has {inputs.shape[1]} cells, the model {cells}: the rest is dropped.',
                stacklevel=3,
            )

        def fit(x, fill):
            x = x[:, :cells]
            return jnp.pad(x, ((0, 0), (0, cells - x.shape[1])), constant_values=fill)

        if labels is None:
            labels = jnp.full(inputs.shape, IGNORE_LABEL_ID)
        if puzzle_identifiers is None:
            puzzle_identifiers = jnp.zeros(inputs.shape[0])
        return Batch(
            inputs=fit(inputs, 0),
            labels=fit(jnp.asarray(labels, jnp.int32), IGNORE_LABEL_ID),
            puzzle_identifiers=jnp.asarray(puzzle_identifiers, jnp.int32),
        )


class HrmForCausalLM(HrmModel):
    """``HrmModel`` under the name that holds the heads over there; adds ``generate``."""

    prefix = 'model.inner.'

    def generate(
        self,
        input_ids: Any,
        puzzle_identifiers: Any = None,
        *,
        max_new_tokens: int | None = None,
        max_steps: int = 0,
        return_dict_in_generate: bool = False,
    ) -> jax.Array | HrmGeneration:
        """Thinks until every row halts (q_halt > q_continue) and returns the filled boards.

        Args:
          input_ids: int [B, S], the questions.
          puzzle_identifiers: int [B]; None: 0.
          max_new_tokens: accepted so that calls written for language models work, and without
            effect: this model answers all S cells at once and appends nothing, so the result
            always has the shape of the board.
          max_steps: ACT steps at most; 0: ``config.halt_max_steps``.
          return_dict_in_generate: returns HrmGeneration, with the steps taken, instead of the
            boards alone.

        Returns:
          int32 [B, S]; cells that were given are answered too, not copied.
        """
        del max_new_tokens
        batch = self._batch(input_ids, puzzle_identifiers, None)
        steps = max_steps or self.experiment.act.halt_max_steps
        result = act_calls.generate(self.experiment, steps, self.weights, batch)
        return result if return_dict_in_generate else result.sequences
