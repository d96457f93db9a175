"""The module of candidate sets: from the candidates of every cell to three readings of them.

One stack of transformer blocks is applied ``model.L_cycles`` times to a state for every cell and
one slot for the whole board, which is begun anew at each loop. What is done with the readings:
lattice.py.

Source: lattice deduction transformers, arXiv 2605.08605; santolucito/lattice-deduction-transformers
src/lattice_diffusion/models.
"""

from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import blocks, layers


class Readings(struct.PyTreeNode):
    """Logits of a state, float32; of every loop with a leading axis [loops].

    Attributes:
      keep: [B, S, C], that a candidate may stay: it is part of a solution.
      choice: [B, S, C], which candidate the cell's symbol is, under a softmax.
      conflict: [B], that no solution is left.
    """

    keep: jax.Array
    choice: jax.Array
    conflict: jax.Array


class _Loop(nn.Module):
    """One application of the stack: the state of the cells and, at its end, that of the board."""

    config: ModelConfig
    keeps_all: bool

    @nn.compact
    def __call__(self, state, first_BSD: jax.Array):
        config = self.config
        dim, cells, dtype = config.hidden_size, config.seq_len, first_BSD.dtype
        h_BSD = state[0] + first_BSD
        x_BSD = h_BSD
        if config.pos_encodings == 'rows+columns':
            table_init, names = layers.embedding_initializer(config, dim), (None, types.EMBED)
            rows, columns = (
                layers.param(self, name, table_init, (size, dim), names).astype(dtype)
                for name, size in zip(
                    ('row_embed', 'column_embed'), config.board_shape, strict=True
                )
            )
            x_BSD += (rows[:, None] + columns[None]).reshape(cells, dim)
        slot_init = nn.initializers.normal(0.02)
        slot, position = (
            layers.param(self, name, slot_init, (dim,), (types.EMBED,))
            for name in ('slot', 'slot_position')
        )
        slot_B1D = jnp.broadcast_to((slot + position).astype(dtype), (len(x_BSD), 1, dim))
        x_BTD = jnp.concatenate([x_BSD, slot_B1D], axis=1)
        block = blocks.BLOCKS[config.block]
        if config.remat:
            block = nn.remat(block)
        for i in range(config.L_layers):
            x_BTD = block(config, name=f'layers_{i}')(x_BTD)
            x_BTD = partitioning.constrain(x_BTD, (types.BATCH, types.CELLS, types.EMBED))
        norm = layers.LayerNorm(config, name='norm')
        state = norm(h_BSD + x_BTD[:, :cells]), x_BTD[:, cells]
        return state, state if self.keeps_all else None


class CandidateModel(nn.Module):
    """Candidates in, ``Readings`` out."""

    config: ModelConfig

    @nn.compact
    def __call__(self, alive_BSC: jax.Array, all_loops: bool = False) -> Readings:
        """Reads a state of candidates, bool [B, S, C], after the last loop or after each."""
        config = self.config
        dim, size, loops = config.hidden_size, config.num_symbols, config.L_cycles
        dtype = jnp.dtype(config.forward_dtype)

        def project(count: int, fan_in: int, axes: tuple[str, str], name: str):
            return layers.Projection(
                (count,),
                axes[:1],
                axes[1:],
                layers.kernel_initializer(config, fan_in),
                use_bias=True,
                bias_init=layers.bias_initializer(config, fan_in),
                name=name,
            )

        embed = project(dim, size, (types.VOCAB, types.EMBED), 'input_proj')
        first_BSD = embed(alive_BSC.astype(dtype))
        first_BSD = partitioning.constrain(first_BSD, (types.BATCH, types.CELLS, types.EMBED))
        state = first_BSD, jnp.zeros_like(first_BSD[:, 0])
        if config.unroll_cycles:
            loop, states = _Loop(config, all_loops, name='loop'), []
            for _ in range(loops):
                state, kept = loop(state, first_BSD)
                states.append(kept)
            if all_loops:
                states = jax.tree.map(lambda *x: jnp.stack(x), *states)
        else:
            repeated = nn.scan(
                _Loop,
                variable_broadcast='params',
                split_rngs={'params': False, 'dropout': True},
                in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
                length=loops,
            )
            found: Any = repeated(config, all_loops, name='loop')(state, first_BSD)
            state, states = found
        h, board = states if all_loops else state
        keep, choice = (
            project(size, dim, (types.EMBED, types.VOCAB), name)(h).astype(jnp.float32)
            for name in ('keep_head', 'choice_head')
        )
        conflict = project(1, dim, (types.EMBED, types.VOCAB), 'conflict_head')(board)
        return Readings(keep, choice, conflict[..., 0].astype(jnp.float32))
