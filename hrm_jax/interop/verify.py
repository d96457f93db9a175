"""Checks a conversion by reading its result back."""

import dataclasses
import os

import jax
import numpy as np

from hrm_jax.checkpoint import Weights
from hrm_jax.interop import act_calls, architecture, formats, state_dict
from hrm_jax.interop.errors import CheckpointFormatError
from hrm_jax.model import hrm
from hrm_jax.types import IGNORE_LABEL_ID, Batch

_CHUNK = 2**16  # rows compared at a time, so that no large copy is made


def verify(weights: Weights, written: str | os.PathLike, use_ema: bool = True) -> str:
    """Compares weights with what was written: every tensor, and the outputs of two ACT steps.

    Args:
      weights: what was saved.
      written: the path it was saved to.
      use_ema: whether the moving average was saved in place of the parameters.

    Returns:
      one line that says what was compared.

    Raises:
      CheckpointFormatError: something differs; the message names it.
    """
    again = formats.load(written, seq_len=weights.config.model.seq_len)
    if found := architecture.differences(weights.config.model, again.config.model):
        raise CheckpointFormatError(f'verification failed: saved and read back {"; ".join(found)}.')
    expected = state_dict.to_state(weights, prefix='', use_ema=use_ema)
    actual = state_dict.to_state(again, prefix='', use_ema=use_ema)
    if list(expected) != list(actual):
        raise CheckpointFormatError('verification failed: the tensors have other names.')
    for name, array in expected.items():
        if not _same(array, actual[name]):
            raise CheckpointFormatError(f'verification failed: {name} differs.')
    if again.ema is None and weights.ema is not None and use_ema:
        weights = dataclasses.replace(weights, params=weights.ema)
    difference = _output_difference(weights, again)
    if difference:
        raise CheckpointFormatError(
            f'verification failed: the logits or Q values differ by up to {difference:g}.'
        )
    return f'verified: {len(expected)} tensors equal bit for bit, equal outputs of 2 ACT steps'


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return all(
        a[i : i + _CHUNK].tobytes() == b[i : i + _CHUNK].tobytes() for i in range(0, len(a), _CHUNK)
    )


def _output_difference(first: Weights, second: Weights) -> float:
    model = first.config.model
    random = np.random.default_rng(0)
    inputs = random.integers(0, model.vocab_size, (1, model.seq_len), dtype=np.int32)
    batch = Batch(inputs, np.full_like(inputs, IGNORE_LABEL_ID), np.zeros(1, np.int32))
    outputs = []
    for weights in (first, second):
        # One row of the table is all that this puzzle needs.
        table = None if weights.puzzle_table is None else np.asarray(weights.puzzle_table[:1])
        carry = hrm.empty_latent(model, 1)
        carry = act_calls.act.initial_carry(carry, batch)
        for _ in range(2):
            output = act_calls.act_step(
                first.config, (False, False, False), weights.params, weights.constants, table,
                carry, batch, None,
            )  # fmt: skip
            carry = output.carry
        outputs.append((output.logits, output.q_halt_logits, output.q_continue_logits))
    differences = jax.tree.map(
        lambda a, b: np.abs(np.float32(a) - np.float32(b)).max(), outputs[0], outputs[1]
    )
    return float(max(differences))
