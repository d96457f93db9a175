"""The architecture: one frozen dataclass for the whole family, with its cross-field checks."""

import dataclasses
from typing import Literal

from hrm_jax.config.checks import check_fields, require_not_negative, require_positive
from hrm_jax.errors import ConfigError

Levels = Literal['separate', 'shared', 'single']
Block = Literal['attention', 'token_mixing', 'sru', 'srupp']
RECURRENT_BLOCKS = ('sru', 'srupp')
GradientWindow = Literal['one_step', 'last_cycle', 'full']
Positions = Literal['rope', 'learned', 'rope+learned', 'none']
Dtype = Literal['float32', 'bfloat16', 'float16']
Initializer = Literal['truncated_normal', 'normal', 'uniform']
InitialState = Literal['fixed', 'learned']
Attention = Literal['auto', 'xla', 'cudnn', 'pallas', 'tpu']
MLP_MULTIPLE = 256
SRUPP_HEADS = 4  # fixed in the original
LARGE_TABLE = 2**16  # rows from which on the puzzle table is sharded over the devices
TABLE_MULTIPLE = 2**10  # its rows are then padded to a multiple of this
SRUPP_SHRINK = 4  # hidden size over the width of SRU++'s attention


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of the recursive core.

    The defaults are HRM's (paper section 2; models/hrm/hrm_act_v1.py). TRM, its ablations, SRU,
    SRU++ and the path finders are other values of the same fields: see configs/.

    ``vocab_size``, ``seq_len`` and ``num_puzzle_identifiers`` come from the data set
    (``for_dataset``); 0 means "not known yet".
    """

    vocab_size: int = 0
    seq_len: int = 0
    num_puzzle_identifiers: int = 0
    # separate: two modules, two states (HRM); shared: one module plays both roles (TRM);
    # single: one module, one state. One-module models have L_layers blocks.
    levels: Levels = 'separate'
    low_states: int = 1  # low-level states; above 1 each low update writes the next one
    closing_update: bool = False  # single: a cycle ends with one update that sees no input
    block: Block = 'attention'
    H_cycles: int = 2
    L_cycles: int = 2
    H_layers: int = 4
    L_layers: int = 4
    gradient_window: GradientWindow = 'one_step'  # last L and last H update | last H cycle | all
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    intermediate_size: int = 0  # inner size of the gated unit; 0: by the rule of the original
    round_mlp: bool = True  # that rule: up to a multiple of 256; False: just down (krychu/hrm)
    qkv_bias: bool = False
    o_bias: bool = False
    head_bias: bool = False
    pos_encodings: Positions = 'rope'
    scale_learned_positions: bool = True  # (token + position) / sqrt(2); False: the plain sum
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    norm_scale: bool = False  # a learnable scale in every norm of the blocks
    dropout: float = 0.0  # before each residual; SRU++: before its last map, and on cells
    attention_dropout: float = 0.0
    puzzle_emb_ndim: int = 512
    puzzle_emb_len: int = 0  # slots of the puzzle prefix; 0: ceil(ndim / hidden_size)
    q_head: bool = True  # False: fixed halting only; both Q values are then 0
    # learned: also trained through the window, see recursion.py
    initial_state: InitialState = 'fixed'
    sru_frozen_weight_c: bool = True  # cell-to-gate weights stay as drawn, as in the original
    sru_bidirectional: bool = False  # the second half of the channels runs backwards
    forward_dtype: Dtype = 'bfloat16'
    initializer: Initializer = 'truncated_normal'  # uniform: torch's defaults for linear layers
    attention: Attention = 'auto'  # who computes it: model/attention.py
    remat: bool = False  # recompute the blocks in the backward pass to save memory
    unroll_cycles: bool = False  # no loops in the program: exact FLOP counts, slower compile

    def __post_init__(self):
        check_fields(self, 'model.')
        require_positive(**{
            f'model.{name}': getattr(self, name)
            for name in ('H_cycles', 'L_cycles', 'L_layers', 'low_states', 'hidden_size',
                         'num_heads', 'expansion', 'rope_theta', 'rms_norm_eps')
        })  # fmt: skip
        require_not_negative(**{
            f'model.{name}': getattr(self, name)
            for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'H_layers',
                         'puzzle_emb_ndim', 'puzzle_emb_len', 'intermediate_size')
        })  # fmt: skip
        if self.levels == 'separate':
            require_positive(**{'model.H_layers': self.H_layers})
        for name in ('dropout', 'attention_dropout'):
            rate = getattr(self, name)
            ConfigError.require(0 <= rate < 1, f'model.{name} must be in [0, 1); got {rate}.')
        ConfigError.require(
            self.hidden_size % self.num_heads == 0,
            f'model.hidden_size must be a multiple of model.num_heads; got '
            f'{self.hidden_size} and {self.num_heads}. Change one of them.',
        )
        ConfigError.require(
            not self.uses_rope or self.head_dim % 2 == 0,
            f'model.pos_encodings={self.pos_encodings} needs an even head size; hidden_size / '
            f'num_heads is {self.head_dim}. Use fewer or more heads, or learned positions.',
        )
        ConfigError.require(
            self.puzzle_emb_len == 0
            or 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size,
            f'model.puzzle_emb_len slots of hidden_size must hold puzzle_emb_ndim values and '
            f'need some; got {self.puzzle_emb_len} x {self.hidden_size} for '
            f'{self.puzzle_emb_ndim}. Set puzzle_emb_len=0 to fit the slots to the vector.',
        )
        self._check_attention()
        self._check_schedule()

    def _check_attention(self) -> None:
        name = self.attention
        needs = {
            'cudnn': (
                self.forward_dtype != 'float32' and self.head_dim % 8 == 0,
                'bfloat16 or float16 and a head size that is a multiple of 8',
            ),
            'pallas': (self.head_dim <= 128, 'a head size of at most 128'),
            'tpu': (self.forward_dtype != 'float16', 'bfloat16 or float32'),
        }
        holds, what = needs.get(name, (True, ''))
        ConfigError.require(
            holds,
            f'model.attention={name} needs {what}; got {self.forward_dtype} and '
            f'{self.head_dim}. Use model.attention=auto.',
        )

    def _check_schedule(self) -> None:
        ConfigError.require(
            self.low_states == 1 or self.levels != 'single',
            f'model.low_states={self.low_states} needs a high level beside the low ones; '
            f'levels=single has one state. Use levels=shared.',
        )
        ConfigError.require(
            self.low_states == 1 or self.L_cycles <= self.low_states,
            f'model.L_cycles must not exceed model.low_states when there are several; got '
            f'{self.L_cycles} and {self.low_states}. Each low update writes a state of its own.',
        )
        ConfigError.require(
            not self.closing_update or self.levels == 'single',
            'model.closing_update is for levels=single; two-state models always close a cycle '
            'with a high update. Leave it out.',
        )
        if self.block not in RECURRENT_BLOCKS:
            ConfigError.require(
                not self.sru_bidirectional,
                f'model.sru_bidirectional needs an SRU block; block is {self.block}.',
            )
            return
        ConfigError.require(
            self.levels == 'separate'
            and (self.H_cycles, self.L_cycles, self.low_states) == (1, 1, 1)
            and self.gradient_window == 'full',
            f'model.block={self.block} runs the low and then the high level once per ACT step and '
            f'back-propagates through both: set levels=separate, H_cycles=1, L_cycles=1, '
            f'low_states=1, gradient_window=full.',
        )
        ConfigError.require(
            self.block != 'srupp' or self.hidden_size % (SRUPP_SHRINK * SRUPP_HEADS) == 0,
            f'model.block=srupp needs a hidden_size that is a multiple of '
            f'{SRUPP_SHRINK * SRUPP_HEADS}; got {self.hidden_size}.',
        )
        ConfigError.require(
            not self.sru_bidirectional or self.hidden_size % 2 == 0,
            f'model.sru_bidirectional needs an even hidden_size; got {self.hidden_size}.',
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def uses_rope(self) -> bool:
        return 'rope' in self.pos_encodings and self.block == 'attention'

    @property
    def uses_learned_positions(self) -> bool:
        return 'learned' in self.pos_encodings

    @property
    def is_recurrent(self) -> bool:
        """Whether the state is the cells of a recurrence over the sequence (SRU, SRU++)."""
        return self.block in RECURRENT_BLOCKS

    @property
    def has_dropout(self) -> bool:
        """Whether training draws dropout masks."""
        return max(self.dropout, self.attention_dropout) > 0

    @property
    def prefix_len(self) -> int:
        """Slots that the puzzle vector occupies before the tokens."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def has_large_table(self) -> bool:
        """Whether the puzzle table is sharded by rows over the devices."""
        return self.num_puzzle_identifiers >= LARGE_TABLE

    @property
    def table_rows(self) -> int:
        """Rows of the puzzle table while training: padded where it is sharded.

        The padding depends on no mesh, so that training can resume under any other.
        """
        multiple = TABLE_MULTIPLE if self.has_large_table else 1
        return -(-self.num_puzzle_identifiers // multiple) * multiple

    @property
    def total_len(self) -> int:
        return self.prefix_len + self.seq_len

    @property
    def mlp_dim(self) -> int:
        """Inner size of the gated unit over the channels."""
        return self.intermediate_size or self.inner_size(self.hidden_size)

    def inner_size(self, width: int) -> int:
        """Inner size of a gated unit over an axis of length ``width``, by the original's rule."""
        size = self.expansion * width * 2 / 3
        return -(-round(size) // MLP_MULTIPLE) * MLP_MULTIPLE if self.round_mlp else int(size)

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
            ConfigError.require(size > 0, f'the data set must state a {name} above 0; got {size}.')
            own = getattr(self, name)
            ConfigError.require(
                own in (0, size),
                f'model.{name} is {own} but the data set has {size}. Leave it at 0 to take '
                f"the data set's, or use the data set that the model was made for.",
            )
        return dataclasses.replace(self, **sizes)
