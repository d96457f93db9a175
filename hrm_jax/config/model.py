"""The architecture: one frozen dataclass for the whole family, with its cross-field checks."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Literal

from hrm_jax.config import lattice, model_checks
from hrm_jax.config.checks import check_fields, require_not_negative, require_positive
from hrm_jax.config.lattice import LatticeConfig
from hrm_jax.errors import ConfigError

Levels = Literal['separate', 'shared', 'single']
# group_mixing: every cell hears its row, its column and its box (recurrent relational networks);
# transformer: layer norms with scale and shift, biases, GELU (torch's; LDT).
Block = Literal['attention', 'token_mixing', 'group_mixing', 'transformer', 'sru', 'srupp']
RECURRENT_BLOCKS = ('sru', 'srupp')
ANY_SIZE_BLOCKS = ('attention', 'group_mixing')  # no weight of theirs knows the number of positions
GradientWindow = Literal['one_step', 'last_cycle', 'full']
GatedUnit = Literal['swiglu', 'sigmoid_rms', 'conv_swiglu']
ConvDtype = Literal['forward', 'bfloat16']
# rope2d turns half of each head by the row, half by the column (EqR); rope2d_whole turns pairs that
# span the whole head, half of them by the row (SE-RRM's rope2d); rope2d_pairs is rope2d with
# neighbouring channels as pairs (LDT). rows+columns: a learned vector for each row and column.
Positions = Literal[
    'rope', 'rope2d', 'rope2d_whole', 'rope2d_pairs', 'learned', 'rope+learned', 'rows+columns',
    'none',
]  # fmt: skip
# How the symbols of a cell exchange (model/symbols.py): the mean of the other symbols, attention
# over all symbols (SE-RRM), attention over the others (digit fields). none: no symbol axis.
SymbolExchange = Literal['none', 'mean', 'attention', 'attention_to_others']
SymbolInput = Literal['presence', 'roles']
StartDistribution = Literal['truncated_normal', 'normal']
Dtype = Literal['float32', 'bfloat16', 'float16']
# truncated_normal_plain: truncated, and so with 0.88 of the deviation that is asked for.
# uniform: torch's defaults for linear layers; torch: also those of its attention and embeddings.
Initializer = Literal['truncated_normal', 'truncated_normal_plain', 'normal', 'uniform', 'torch']
InitialState = Literal['fixed', 'learned', 'random', 'random_low', 'random_in_training']
FlowTimes = Literal['sorted', 'random_start']
PuzzleEmbedding = Literal['table', 'composed']
Attention = Literal['auto', 'xla', 'cudnn', 'pallas', 'tpu', 'tokamax']
GatedUnitKernel = Literal['xla', 'pallas', 'tokamax']
NormKernel = Literal['xla', 'tokamax']
NOISES = ('update_noise', 'high_step_noise', 'low_step_noise')
SRUPP_HEADS = 4  # fixed in the original
LARGE_TABLE = 2**16  # rows from which on the puzzle table is sharded over the devices
TABLE_MULTIPLE = 2**10  # its rows are then padded to a multiple of this
FACTOR_ROWS = 1 + 8 + 10 * 10  # of a composed embedding, before its tasks: data/factors.py
FACTORS_OF_A_PUZZLE = 1 + 1 + 10  # rows whose sum is a puzzle's vector
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
    head_size: int = 0  # of each head; 0: hidden_size / num_heads
    expansion: float = 4.0
    intermediate_size: int = 0  # inner size of the gated unit; 0: by the rule of the original
    round_mlp: bool = True  # that rule: up to a multiple; False: just down (krychu/hrm)
    mlp_multiple: int = 256  # of which multiple
    # swiglu: silu(gate) * up; sigmoid_rms: sigmoid(gate) * RMS(gate * up), in the token mixer too
    # (SIC); conv_swiglu: a depthwise convolution over each position and the one before it, and
    # SiLU, after swiglu (URM).
    gated_unit: GatedUnit = 'swiglu'
    conv_dtype: ConvDtype = 'forward'  # URM's convolution and what follows is bfloat16 always
    pre_norm: bool = True  # transformer: norms before attention and feed-forward layer, or after
    qkv_bias: bool = False
    o_bias: bool = False
    head_bias: bool = False
    pos_encodings: Positions = 'rope'
    board_width: int = 0  # rope2d, groups: cells in a row of the board; 0: it is square
    # Rows and columns of the boxes of group_mixing; 0: the task's, or no boxes.
    box_height: int = 0
    box_width: int = 0
    scale_learned_positions: bool = True  # (token + position) / sqrt(2); False: the plain sum
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    norm_scale: bool = False  # a learnable scale in every norm of the blocks
    dropout: float = 0.0  # before each residual; SRU++: before its last map, and on cells
    attention_dropout: float = 0.0
    dropout_at_inference: bool = False  # SE-RRM's attention never switches it off
    # With a symbol axis: above 0 means yes, and a row has hidden_size + symbols values.
    puzzle_emb_ndim: int = 512
    # table: a row of the puzzle table for every identifier; composed: the sum of rows of its task
    # and of the factors of its augmentation (data/factors.py; ARC). ``puzzle_tasks`` comes from the
    # data set.
    puzzle_embedding: PuzzleEmbedding = 'table'
    puzzle_tasks: int = 0
    puzzle_emb_len: int = 0  # slots of the puzzle prefix; 0: ceil(ndim / hidden_size)
    # Learned vectors before the cells, in place of the puzzle prefix (SIC).
    register_tokens: int = 0
    q_head: bool = True  # False: fixed halting only; both Q values are then 0
    q_confidence: bool = False  # no Q head: q_halt is the least sure cell's probability (SE-RRM)
    # fixed: constants; learned: also trained through the window, see recursion.py; random: drawn
    # anew for every position when a puzzle begins (EqR), with the deviations below; random_low: the
    # low one alone, in training (SIC); random_in_training: drawn while training, constants at
    # inference (digit fields).
    initial_state: InitialState = 'fixed'
    start_distribution: StartDistribution = 'truncated_normal'
    high_start_std: float = 1.0
    low_start_std: float = 1.0
    # Every update: z <- (1 - update_rate) z + update_rate level(z) + update_noise N(0, 1) (EqR).
    update_rate: float = 1.0
    update_noise: float = 0.0
    # Noise on a state before every ACT step (PTRM).
    high_step_noise: float = 0.0
    low_step_noise: float = 0.0
    # Winner takes all (model/chains.py): chains of each puzzle in training; nearly equal ones are
    # dropped (cosine of their low states above chain_similarity; 1: none); starts equally strong.
    chains: int = 1
    chain_similarity: float = 1.0
    align_chains: bool = False
    # States are running means of their updates (model/running_mean.py), older ones weighing
    # mean_decay less at each; 0: the last update alone counts.
    running_mean: bool = False
    mean_decay: float = 0.0
    learned_mean_decay: bool = False
    # Looped flows (model/flows.py): every step denoises an answer. In training its times are drawn,
    # flow_draws of them; pseudotargets take the truth's place with a probability that rises from 0
    # to 1 over that many train steps (0: never). The cells of a question with another token than
    # flow_open_token are given, and stay as they are in the noisy answer (-1: no cell is given).
    flow: bool = False
    flow_times: FlowTimes = 'sorted'
    flow_draws: int = 17
    flow_pseudotarget_steps: int = 0
    flow_open_token: int = -1
    # Of the sampler; 0 in training. ExperimentConfig.inference_model sets both.
    flow_steps: int = 0
    flow_noise: float = 0.0
    # The symbol axis (model/symbols.py): a state for every (symbol, position) pair.
    symbol_exchange: SymbolExchange = 'none'
    # presence: every token is on the axis, and has its vector where it is in the puzzle (SE-RRM);
    # roles: only the symbols are; a cell is empty, given as this one, or given as another.
    symbol_input: SymbolInput = 'presence'
    shared_symbols: bool = True  # one vector and one head for all symbols: equivariant
    first_symbol: int = 2  # tokens from here on are interchangeable; the task's, where it knows
    symbol_heads: int = 0  # of attention over the symbols
    symbol_head_size: int = 0
    added_tokens: int = 0  # slots after the cells, for every symbol
    sru_frozen_weight_c: bool = True  # cell-to-gate weights stay as drawn, as in the original
    sru_bidirectional: bool = False  # the second half of the channels runs backwards
    forward_dtype: Dtype = 'bfloat16'
    initializer: Initializer = 'truncated_normal'
    lattice: LatticeConfig = LatticeConfig()  # candidate sets in place of states (LDT)
    attention: Attention = 'auto'  # who computes it: model/attention.py
    gated_unit_kernel: GatedUnitKernel = 'xla'  # likewise: model/gated_unit.py
    norm_kernel: NormKernel = 'xla'  # likewise: layers.Norm
    remat: bool = False  # recompute the blocks in the backward pass to save memory
    unroll_cycles: bool = False  # no loops in the program: exact FLOP counts, slower compile

    def __post_init__(self):
        if isinstance(self.lattice, Mapping):  # of a file, or of dataclasses.asdict
            object.__setattr__(self, 'lattice', LatticeConfig(**self.lattice))
        check_fields(self, 'model.')
        require_positive(**{
            f'model.{name}': getattr(self, name)
            for name in ('H_cycles', 'L_cycles', 'L_layers', 'low_states', 'hidden_size',
                         'num_heads', 'expansion', 'rope_theta', 'rms_norm_eps',
                         'mlp_multiple')
        })  # fmt: skip
        require_not_negative(**{
            f'model.{name}': getattr(self, name)
            for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'H_layers',
                         'puzzle_emb_ndim', 'puzzle_emb_len', 'intermediate_size', 'head_size',
                         'symbol_heads', 'symbol_head_size', 'added_tokens', 'first_symbol',
                         'board_width', 'box_height', 'box_width',
                         'register_tokens', 'puzzle_tasks')
        })  # fmt: skip
        if self.levels == 'separate':
            require_positive(**{'model.H_layers': self.H_layers})
        for name in ('dropout', 'attention_dropout'):
            rate = getattr(self, name)
            ConfigError.require(0 <= rate < 1, f'model.{name} must be in [0, 1); got {rate}.')
        ConfigError.require(
            self.head_size > 0 or self.hidden_size % self.num_heads == 0,
            f'model.hidden_size must be a multiple of model.num_heads; got '
            f'{self.hidden_size} and {self.num_heads}. Change one of them, or set model.head_size.',
        )
        ConfigError.require(
            not self.uses_rope or self.head_dim % 2 == 0,
            f'model.pos_encodings={self.pos_encodings} needs an even head size; hidden_size / '
            f'num_heads is {self.head_dim}. Use fewer or more heads, or learned positions.',
        )
        height, width = self.board_shape
        ConfigError.require(
            not self.pos_encodings.startswith('rope2d')
            or (self.head_dim % 4 == 0 and height * width == self.seq_len),
            f'model.pos_encodings={self.pos_encodings} needs whole rows of cells and a head size '
            f'that is a multiple of 4; got {self.seq_len} cells, {width} in a row, and '
            f'{self.head_dim}. Set model.board_width for boards that are not square.',
        )
        ConfigError.require(
            self.puzzle_emb_len == 0
            or 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size,
            f'model.puzzle_emb_len slots of hidden_size must hold puzzle_emb_ndim values and '
            f'need some; got {self.puzzle_emb_len} x {self.hidden_size} for '
            f'{self.puzzle_emb_ndim}. Set puzzle_emb_len=0 to fit the slots to the vector.',
        )
        model_checks.check_symbols(self)
        model_checks.check_groups(self)
        ConfigError.require(
            self.puzzle_embedding == 'table' or (self.has_puzzle_table and not self.has_symbols),
            'model.puzzle_embedding=composed needs model.puzzle_emb_ndim above 0 and no symbol '
            'axis. Leave it out, or give puzzles an embedding.',
        )
        ConfigError.require(
            self.register_tokens == 0 or self.puzzle_emb_ndim == 0,
            f'model.register_tokens={self.register_tokens} take the place of the puzzle prefix, so '
            f'model.puzzle_emb_ndim must be 0; got {self.puzzle_emb_ndim}. Leave one of them out.',
        )
        ConfigError.require(
            self.gated_unit == 'swiglu' or not (self.is_recurrent or self.block == 'transformer'),
            f'model.gated_unit={self.gated_unit} needs a block with gated units; model.block='
            f'{self.block} has none. Leave it out, or use block=attention.',
        )
        ConfigError.require(
            self.gated_unit != 'conv_swiglu' or self.block != 'token_mixing',
            'model.gated_unit=conv_swiglu convolves over positions, and the token mixer has its '
            'channels there. Use block=attention, as URM does.',
        )
        self._check_draws()
        model_checks.check_chains(self)
        model_checks.check_running_mean(self)
        model_checks.check_flow(self)
        model_checks.check_attention(self)
        lattice.check(self)
        self._check_schedule()

    def _check_draws(self) -> None:
        require_not_negative(**{
            f'model.{name}': getattr(self, name)
            for name in ('high_start_std', 'low_start_std', *NOISES)
        })  # fmt: skip
        ConfigError.require(
            0 < self.update_rate <= 1,
            f'model.update_rate must be above 0 and at most 1; got {self.update_rate}.',
        )
        ConfigError.require(
            not self.is_recurrent
            or (self.update_rate == 1 and not self.has_random_start and not self.has_noise),
            f'model.block={self.block} keeps the cells of a recurrence, which are not updated in '
            f'place: update_rate, noise and random starts need a block with a state per position.',
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
        return self.head_size or self.hidden_size // self.num_heads

    @property
    def attention_width(self) -> int:
        """Size of all heads together."""
        return self.num_heads * self.head_dim

    @property
    def has_symbols(self) -> bool:
        """Whether the state has a symbol axis."""
        return self.symbol_exchange != 'none'

    @property
    def num_symbols(self) -> int:
        """Length of the symbol axis, or number of candidates of a cell."""
        first = self.first_symbol if self.symbol_input == 'roles' else 0
        if self.lattice.on:
            first = self.first_symbol
        return self.vocab_size - first

    @property
    def any_size(self) -> bool:
        """Whether one set of weights serves boards of every size: no shape has cells or symbols."""
        return (
            self.has_symbols
            and self.shared_symbols
            and self.block in ANY_SIZE_BLOCKS
            and not self.uses_learned_positions
            and not self.has_puzzle_table
        )

    @property
    def uses_rope(self) -> bool:
        return 'rope' in self.pos_encodings and self.block in ('attention', 'transformer')

    @property
    def board_shape(self) -> tuple[int, int]:
        """Rows and columns of the board that ``rope2d`` reads positions from."""
        if not self.board_width:
            side = math.isqrt(self.seq_len)
            return side, side
        return self.seq_len // self.board_width, self.board_width

    @property
    def uses_learned_positions(self) -> bool:
        return 'learned' in self.pos_encodings

    @property
    def is_recurrent(self) -> bool:
        """Whether the state is the cells of a recurrence over the sequence (SRU, SRU++)."""
        return self.block in RECURRENT_BLOCKS

    @property
    def has_random_start(self) -> bool:
        """Whether a state is drawn anew for every puzzle, at least in training."""
        return self.initial_state in ('random', 'random_low', 'random_in_training')

    @property
    def has_noise(self) -> bool:
        """Whether the states get noise."""
        return any(getattr(self, name) > 0 for name in NOISES)

    @property
    def has_dropout(self) -> bool:
        """Whether training draws dropout masks."""
        return max(self.dropout, self.attention_dropout) > 0

    @property
    def has_halt_logit(self) -> bool:
        """Whether q_halt states how sure the model is of its answer."""
        return self.q_head or self.q_confidence or self.lattice.on

    @property
    def prefix_len(self) -> int:
        """Positions before the cells: slots of the puzzle vector, or register tokens."""
        if self.has_symbols:
            return 0  # the puzzle vector is added to every cell
        return (
            self.register_tokens
            or self.puzzle_emb_len
            or -(-self.puzzle_emb_ndim // self.hidden_size)
        )

    @property
    def has_puzzle_table(self) -> bool:
        """Whether puzzles have vectors of their own."""
        return self.puzzle_emb_ndim > 0

    @property
    def puzzle_row_size(self) -> int:
        """Length of a row of the puzzle table; with a symbol axis, one more for every symbol."""
        if self.has_symbols and self.has_puzzle_table:
            return self.hidden_size + self.num_symbols
        return self.puzzle_emb_ndim

    @property
    def has_large_table(self) -> bool:
        """Whether the puzzle table is sharded by rows over the devices."""
        return self.embedding_rows >= LARGE_TABLE

    @property
    def composes_embeddings(self) -> bool:
        """Whether a puzzle's vector is a sum of rows of the table."""
        return self.puzzle_embedding == 'composed'

    @property
    def embedding_rows(self) -> int:
        """Rows of the puzzle table that stand for something."""
        if self.composes_embeddings:
            return FACTOR_ROWS + self.puzzle_tasks
        return self.num_puzzle_identifiers

    @property
    def table_rows(self) -> int:
        """Rows of the puzzle table while training: padded where it is sharded.

        The padding depends on no mesh, so that training can resume under any other.
        """
        multiple = TABLE_MULTIPLE if self.has_large_table else 1
        return -(-self.embedding_rows // multiple) * multiple

    @property
    def total_len(self) -> int:
        return self.prefix_len + self.seq_len + self.added_tokens

    @property
    def mlp_dim(self) -> int:
        """Inner size of the gated unit over the channels, or of the feed-forward layer."""
        if self.block == 'transformer' and not self.intermediate_size:
            return int(self.expansion * self.hidden_size)
        return self.intermediate_size or self.inner_size(self.hidden_size)

    def inner_size(self, width: int) -> int:
        """Inner size of a gated unit over an axis of length ``width``, by the original's rule."""
        size = self.expansion * width * 2 / 3
        multiple = self.mlp_multiple
        return -(-round(size) // multiple) * multiple if self.round_mlp else int(size)

    def for_dataset(
        self,
        *,
        vocab_size: int,
        seq_len: int,
        num_puzzle_identifiers: int,
        puzzle_tasks: int = 0,
        first_symbol: int | None = None,
        boxes: tuple[int, int] | None = None,
    ) -> 'ModelConfig':
        """Returns this architecture with the sizes of a data set filled in.

        Args:
          vocab_size, seq_len, num_puzzle_identifiers: of the data set.
          puzzle_tasks: tasks of the data set, for composed embeddings alone.
          first_symbol: first interchangeable token of the task (``Task.first_symbol``); None: the
            model's own setting stays.
          boxes: rows and columns of the task's boxes (``Task.boxes``), for ``group_mixing``; None:
            the model's own stay.

        Raises:
          ConfigError: a size is already set and differs from the data set's.
        """
        sizes = {
            'vocab_size': vocab_size,
            'seq_len': seq_len,
            'num_puzzle_identifiers': num_puzzle_identifiers,
        }
        if self.composes_embeddings:
            sizes['puzzle_tasks'] = puzzle_tasks
        for name, size in sizes.items():
            ConfigError.require(size > 0, f'the data set must state a {name} above 0; got {size}.')
            own = getattr(self, name)
            ConfigError.require(
                own in (0, size),
                f'model.{name} is {own} but the data set has {size}. Leave it at 0 to take '
                f"the data set's, or use the data set that the model was made for.",
            )
        if (self.has_symbols or self.lattice.on) and first_symbol is not None:
            sizes['first_symbol'] = first_symbol
        if self.block == 'group_mixing' and boxes is not None:
            sizes['box_height'], sizes['box_width'] = boxes
        return dataclasses.replace(self, **sizes)
