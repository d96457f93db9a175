"""The architecture: one frozen dataclass for the whole family, with its cross-field checks."""

import dataclasses

from hrm_jax.config_checks import (
    require,
    require_choice,
    require_not_negative,
    require_positive,
)

LEVELS = ('separate', 'shared')
BLOCKS = ('attention',)
GRADIENT_WINDOWS = ('one_step', 'last_cycle', 'full')
POSITIONS = ('rope', 'learned', 'none')
DTYPES = ('float32', 'bfloat16', 'float16')
INITIALIZERS = ('truncated_normal', 'normal', 'uniform')
ATTENTIONS = ('auto', 'xla', 'cudnn')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of the recursive core (paper section 2; models/hrm/hrm_act_v1.py).

    ``vocab_size``, ``seq_len`` and ``num_puzzle_identifiers`` come from the data set
    (``for_dataset``); 0 means "not known yet".
    """

    vocab_size: int = 0
    seq_len: int = 0
    num_puzzle_identifiers: int = 0
    levels: str = 'separate'  # two modules (HRM), or one that plays both roles
    block: str = 'attention'
    H_cycles: int = 2
    L_cycles: int = 2
    H_layers: int = 4
    L_layers: int = 4
    gradient_window: str = 'one_step'  # last L and last H update | last H cycle | all
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    intermediate_size: int = 0  # inner size of the gated unit; 0: by the rule of the original
    pos_encodings: str = 'rope'
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    puzzle_emb_ndim: int = 512
    puzzle_emb_len: int = 0  # slots of the puzzle prefix; 0: ceil(ndim / hidden_size)
    forward_dtype: str = 'bfloat16'
    initializer: str = 'truncated_normal'
    attention: str = 'auto'
    remat: bool = False  # recompute the blocks in the backward pass to save memory
    unroll_cycles: bool = False  # no loops in the program: exact FLOP counts, slower compile

    def __post_init__(self):
        require_choice('model.levels', self.levels, LEVELS)
        require_choice('model.block', self.block, BLOCKS)
        require_choice('model.gradient_window', self.gradient_window, GRADIENT_WINDOWS)
        require_choice('model.pos_encodings', self.pos_encodings, POSITIONS)
        require_choice('model.forward_dtype', self.forward_dtype, DTYPES)
        require_choice('model.initializer', self.initializer, INITIALIZERS)
        require_choice('model.attention', self.attention, ATTENTIONS)
        require_positive(**{
            f'model.{name}': getattr(self, name)
            for name in ('H_cycles', 'L_cycles', 'L_layers', 'hidden_size', 'num_heads',
                         'expansion', 'rope_theta', 'rms_norm_eps')
        })  # fmt: skip
        require_not_negative(**{
            f'model.{name}': getattr(self, name)
            for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'H_layers',
                         'puzzle_emb_ndim', 'puzzle_emb_len', 'intermediate_size')
        })  # fmt: skip
        if self.levels == 'separate':
            require_positive(**{'model.H_layers': self.H_layers})
        require(
            self.hidden_size % self.num_heads == 0,
            f'model.hidden_size must be a multiple of model.num_heads; got '
            f'{self.hidden_size} and {self.num_heads}. Change one of them.',
        )
        require(
            self.pos_encodings != 'rope' or self.head_dim % 2 == 0,
            f'model.pos_encodings=rope needs an even head size; hidden_size / num_heads is '
            f'{self.head_dim}. Use fewer or more heads, or learned positions.',
        )
        require(
            self.puzzle_emb_len == 0
            or 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size,
            f'model.puzzle_emb_len slots of hidden_size must hold puzzle_emb_ndim values and '
            f'need some; got {self.puzzle_emb_len} x {self.hidden_size} for '
            f'{self.puzzle_emb_ndim}. Set puzzle_emb_len=0 to fit the slots to the vector.',
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def prefix_len(self) -> int:
        """Slots that the puzzle vector occupies before the tokens."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def total_len(self) -> int:
        return self.prefix_len + self.seq_len

    @property
    def mlp_dim(self) -> int:
        """Inner size of the gated unit, rounded up to a multiple of 256 as in the original."""
        if self.intermediate_size:
            return self.intermediate_size
        return -(-round(self.expansion * self.hidden_size * 2 / 3) // 256) * 256

    def for_dataset(
        self, *, vocab_size: int, seq_len: int, num_puzzle_identifiers: int
    ) -> 'ModelConfig':
        """Returns this architecture with the sizes of a data set filled in.

        Raises:
          ConfigError: a size is already set and differs from the data set's.
        """
        sizes = {
            'vocab_size': vocab_size,
            'seq_len': seq_len,
            'num_puzzle_identifiers': num_puzzle_identifiers,
        }
        for name, size in sizes.items():
            require(size > 0, f'the data set must state a {name} above 0; got {size}.')
            own = getattr(self, name)
            require(
                own in (0, size),
                f'model.{name} is {own} but the data set has {size}. Leave it at 0 to take '
                f"the data set's, or use the data set that the model was made for.",
            )
        return dataclasses.replace(self, **sizes)
