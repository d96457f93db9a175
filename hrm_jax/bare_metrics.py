"""The part of ``clu.metrics`` that metrics.py uses, for machines where clu is not installed.

Same fields in the same order, so that checkpoints move between machines with and without it.
"""

import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Metric:
    """A value that can be merged with others of its kind and computed at the end."""


@struct.dataclass
class _ReductionCounter(Metric):
    value: jax.Array

    @classmethod
    def empty(cls) -> '_ReductionCounter':
        return cls(value=jnp.array(1, jnp.int32))

    def merge(self, other: '_ReductionCounter') -> '_ReductionCounter':
        return _ReductionCounter(self.value + other.value)


@struct.dataclass
class Collection:
    """Several metrics that are merged and computed together."""

    _reduction_counter: _ReductionCounter

    def merge(self, other: 'Collection') -> 'Collection':
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(**{n: getattr(self, n).merge(getattr(other, n)) for n in names})

    def compute(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(self)]
        return {n: getattr(self, n).compute() for n in names if not n.startswith('_')}
