"""What a level is made of: blocks [B, T, D] -> [B, T, D], chosen by ``model.block``."""

from flax import linen as nn
import jax

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import attention, layers


class SelfAttention(nn.Module):
    """Multi-head attention with one fused projection, output axes (q|k|v, heads, head_dim)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config
        dim = x_BTD.shape[-1]
        qkv = layers.Projection(
            (3, config.num_heads, config.head_dim),
            (types.EMBED,),
            (types.QKV, types.HEADS, types.HEAD_DIM),
            layers.kernel_initializer(config, dim),
            name='qkv_proj',
        )(x_BTD)
        q_BTNK, k_BTNK, v_BTNK = qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]
        if config.pos_encodings == 'rope':
            tables = layers.rotary_tables(x_BTD.shape[1], config.head_dim, config.rope_theta)
            q_BTNK, k_BTNK = layers.rotate(q_BTNK, *tables), layers.rotate(k_BTNK, *tables)
        mixed_BTNK = attention.attend(q_BTNK, k_BTNK, v_BTNK, config.attention)
        return layers.Projection(
            (dim,),
            (types.HEADS, types.HEAD_DIM),
            (types.EMBED,),
            layers.kernel_initializer(config, config.num_heads * config.head_dim),
            name='o_proj',
        )(mixed_BTNK)


class AttentionBlock(nn.Module):
    """Attention, then the gated unit; the norm comes after each residual (post-norm)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        eps = self.config.rms_norm_eps
        y = layers.rms_norm(x_BTD + SelfAttention(self.config, name='self_attn')(x_BTD), eps)
        return layers.rms_norm(y + layers.GatedUnit(self.config, name='mlp')(y), eps)


BLOCKS: dict[str, type[nn.Module]] = {'attention': AttentionBlock}


class Level(nn.Module):
    """A stack of blocks that refines one state, given what is injected into it.

    Attributes:
      config: architecture.
      num_layers: blocks in the stack.
    """

    config: ModelConfig
    num_layers: int

    @nn.compact
    def __call__(self, state_BTD: jax.Array, injection_BTD: jax.Array) -> jax.Array:
        """Adds the injection once, before the first block; returns the new state."""
        block = BLOCKS[self.config.block]
        if self.config.remat:
            block = nn.remat(block)
        x = state_BTD + injection_BTD
        for i in range(self.num_layers):
            x = block(self.config, name=f'layers_{i}')(x)
            x = partitioning.constrain(x, (types.BATCH, types.CELLS, types.EMBED))
        return x
