"""The one definition of every setting: frozen dataclasses with their cross-field checks.

People edit an ``ml_collections.ConfigDict`` (files in ``configs/``, flags such as
``--config.optimizer.lr=1e-4``). ``main`` turns it once into an ``ExperimentConfig``; the
rest of the program sees typed attributes only. The defaults below are the only list of
defaults and follow the original's ``config/cfg_pretrain.yaml`` and ``config/arch/hrm_v1.yaml``
(sapientinc/HRM), save where a comment states otherwise.
"""

import dataclasses
import itertools
import json
import re
import typing
from typing import Any, Literal

from hrm_jax import files
from hrm_jax.config import lattice, parsing, rollouts
from hrm_jax.config.checks import check_fields, require_not_negative, require_positive
from hrm_jax.config.mesh import MeshConfig
from hrm_jax.config.model import NOISES, ModelConfig
from hrm_jax.config.rollouts import RolloutConfig
from hrm_jax.errors import ConfigError

OptimizerName = Literal['adam_atan2', 'adam_atan2_pytorch', 'adamw', 'muon']
MuonDtype = Literal['bfloat16', 'float32']
MuonScale = Literal['original', 'match_rms_adamw']
Curriculum = Literal['none', 'cgar']
Halting = Literal['q_learning', 'halt_only', 'random', 'fixed', 'solved']
EvalHalting = Literal['max', 'adaptive']
Identifiers = Literal['own', 'blank', 'random']
Output = Literal['predictions', 'q', 'inputs', 'labels', 'logits']
TokenLoss = Literal['stablemax_cross_entropy', 'softmax_cross_entropy']
PuzzleTableChoice = Literal['error', 'mean', 'zeros', 'overlap']
GradientSums = Literal['auto', 'float32', 'compute']
DataFormat = Literal['auto', 'records', 'npy_folder']
Augmentation = Literal['stored', 'on_the_fly', 'translation', 'digits', 'digits_sic']
Direction = Literal['max', 'min']
_SUBSET = re.compile(r'random([1-9]\d{0,8})-seed(\d{1,9})')


@dataclasses.dataclass(frozen=True)
class ActConfig:
    """Adaptive computation time (paper section 2; spec of the halting rules in act.py)."""

    halting: Halting = 'q_learning'
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1
    train_q_continue: bool = True  # q_learning: one more pass per step for q_continue's target

    def __post_init__(self):
        check_fields(self, 'act.')
        require_positive(**{'act.halt_max_steps': self.halt_max_steps})
        ConfigError.require(
            0 <= self.halt_exploration_prob <= 1,
            f'act.halt_exploration_prob must be in [0, 1]; got {self.halt_exploration_prob}.',
        )

    @property
    def steps_per_batch(self) -> int:
        """Train steps that a batch takes where all rows halt together."""
        return self.halt_max_steps if self.halting == 'fixed' else 1


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Loss of one ACT step: token loss + ``q_weight`` * (halt loss + continue loss)."""

    loss_type: TokenLoss = 'stablemax_cross_entropy'
    q_weight: float = 0.5
    label_smoothing: float = 0.0  # share of the token loss that is spread over the vocabulary (SIC)
    # Weight of the token loss at ACT step n: step_decay^(n - 1), not normalized (CGAR: 0.7). Its
    # paper divides by the sum over the steps, its code does not.
    step_decay: float = 1.0
    # The original counts rows without any scored cell (padding of the last evaluation batch)
    # as solved puzzles in the Q losses; True gives its numbers.
    count_empty_rows: bool = False
    # Answer anchors (digit fields; anchors.py): the first anchor_share of the rows also run
    # anchor_steps steps from their own answer, of which a share of cells drawn from
    # [0, anchor_corruption] is replaced, and the token losses count with this weight; 0: off.
    anchor_weight: float = 0.0
    anchor_share: float = 0.25
    anchor_steps: int = 1
    anchor_corruption: float = 0.2
    # Candidate sets (pool.py): weights of candidates that stay and that do not, of the choice of a
    # symbol, and of conflicts.
    candidate_weight: float = 4.0
    removed_weight: float = 0.5
    choice_weight: float = 0.2
    conflict_weight: float = 0.1

    def __post_init__(self):
        check_fields(self, 'loss.')
        require_not_negative(**{
            f'loss.{name}': getattr(self, name)
            for name in ('q_weight', 'anchor_weight', 'candidate_weight', 'removed_weight',
                         'choice_weight', 'conflict_weight')
        })  # fmt: skip
        require_positive(**{'loss.anchor_steps': self.anchor_steps})
        for name in ('anchor_share', 'anchor_corruption'):
            share = getattr(self, name)
            ConfigError.require(
                0 < share <= 1, f'loss.{name} must be above 0 and at most 1; got {share}.'
            )
        ConfigError.require(
            0 <= self.label_smoothing < 1,
            f'loss.label_smoothing must be in [0, 1); got {self.label_smoothing}.',
        )
        ConfigError.require(
            0 < self.step_decay <= 1,
            f'loss.step_decay must be above 0 and at most 1; got {self.step_decay}.',
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the puzzles are stored.

    ``format`` is found from the folder's content by default: ``records`` (made by
    ``python -m data_builders``) or ``npy_folder`` (made by the original's scripts).

    ``source`` takes the place of ``path``: a CSV or JSON-lines file of one's own (or a folder with
    train and test), from which the set is built into ``<workdir>/dataset`` when a run begins.
    """

    path: str = ''
    source: str = ''
    source_flags: str = ''  # more flags of python -m data_builders custom, e.g. '--words'
    format: DataFormat = 'auto'
    # In place of the task that the metadata name (or that is guessed, for folders of the originals,
    # which name none): sudoku, maze, arc, lisp, pathfinding, or another name.
    task: str = ''
    # The builder's maps | drawn anew at every visit | ARC: only the place | Sudoku: the builder's
    # maps, then another permutation of the digits and one of 8 symmetries for every row (SIC);
    # digits_sic: as its code does it, which permutes the blank in place of the last digit.
    augmentation: Augmentation = 'stored'
    # Share of the training puzzles with some of their open cells filled in, other ones at every
    # visit (Sudokus, data/hints.py; candidate sets, pool.py). Candidate sets also: share of those
    # with some filled in wrongly, which have no solution.
    hint_prob: float = 0.0
    wrong_hint_prob: float = 0.0

    def __post_init__(self):
        check_fields(self, 'data.')
        shares = (self.hint_prob, self.wrong_hint_prob)
        ConfigError.require(
            min(shares) >= 0 and sum(shares) <= 1,
            f'data.hint_prob and data.wrong_hint_prob must be in [0, 1], together at most 1; got '
            f'{self.hint_prob} and {self.wrong_hint_prob}.',
        )
        ConfigError.require(
            bool(self.source) or not self.source_flags,
            f'data.source_flags states how data.source is read, and that is empty; got '
            f'{self.source_flags!r}. Set data.source, or leave the flags out.',
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer of the weights, and row-sparse sign-SGD for the puzzle table (optim.py).

    ``adam_atan2`` is HRM's and TRM's (the CUDA package), ``adam_atan2_pytorch`` the SRU fork's
    (another formula), ``adamw`` krychu/hrm's. ``muon`` (muon.py, SIC's form) takes the matrices,
    and AdamW with ``lr``, the betas, ``eps`` and ``weight_decay`` the rest; one schedule scales all
    rates.
    """

    name: OptimizerName = 'adam_atan2'
    lr: float = 1e-4
    lr_min_ratio: float = 1.0
    lr_warmup_steps: int = 2000
    schedule_start: int = 1  # number of the first update in the schedule: 0 in SIC, 1 elsewhere
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8  # adamw and muon only
    weight_decay: float = 0.1
    puzzle_emb_lr: float = 1e-2
    puzzle_emb_weight_decay: float = 0.1
    grad_clip_norm: float = 0.0  # 0: off, as in the original
    ema_decay: float = 0.0  # 0: off; evaluation and export use the average when it is on
    ema_start_step: int = 0  # until then the average is a copy of the weights
    muon_lr: float = 0.02
    muon_weight_decay: float = 0.005
    muon_momentum: float = 0.6
    muon_nesterov: bool = True
    muon_steps: int = 3  # of the Newton-Schulz iteration
    muon_dtype: MuonDtype = 'bfloat16'  # of that iteration
    muon_scale: MuonScale = 'original'
    # Parameters with one of these in their name get AdamW, whatever their shape.
    muon_skip: tuple[str, ...] = ('embed', 'head', 'register_tokens', 'conv')
    freeze_weights: bool = False  # trains the puzzle table only, as fine-tuning may want

    def __post_init__(self):
        check_fields(self, 'optimizer.')
        require_positive(**{'optimizer.lr': self.lr, 'optimizer.eps': self.eps})
        require_not_negative(**{
            f'optimizer.{name}': getattr(self, name)
            for name in ('lr_warmup_steps', 'weight_decay', 'puzzle_emb_lr', 'ema_start_step',
                         'puzzle_emb_weight_decay', 'grad_clip_norm', 'muon_weight_decay')
        })  # fmt: skip
        require_positive(**{
            'optimizer.muon_lr': self.muon_lr, 'optimizer.muon_steps': self.muon_steps
        })  # fmt: skip
        ConfigError.require(
            self.schedule_start in (0, 1),
            f'optimizer.schedule_start must be 0 or 1; got {self.schedule_start}.',
        )
        for name in ('beta1', 'beta2', 'ema_decay', 'muon_momentum'):
            value = getattr(self, name)
            ConfigError.require(0 <= value < 1, f'optimizer.{name} must be in [0, 1); got {value}.')
        ConfigError.require(
            0 <= self.lr_min_ratio <= 1,
            f'optimizer.lr_min_ratio must be in [0, 1]; got {self.lr_min_ratio}.',
        )


@dataclasses.dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stops when ``metric`` has not improved for ``patience`` evaluations (or log lines).

    ``metric`` is a name as it stands in metrics.jsonl, e.g. ``eval/all/exact_accuracy`` or
    ``train/lm_loss``; empty: never.
    """

    metric: str = ''
    mode: Direction = 'max'
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self):
        check_fields(self, 'train.early_stopping.')
        require_positive(**{'train.early_stopping.patience': self.patience})
        require_not_negative(**{'train.early_stopping.min_delta': self.min_delta})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run and what happens when.

    An epoch visits every group of puzzles once, as the original counts it. The number of
    steps is ``epochs * groups * mean examples of a puzzle / global_batch_size``, with fixed
    halting times ``act.halt_max_steps``.
    """

    global_batch_size: int = 768
    epochs: int = 100000
    eval_interval: int = 10000  # epochs between evaluations; 0: only at the end
    # Goes on from a checkpoint of another global_batch_size: the rest of the examples in batches
    # of the new size; puzzles in progress start again.
    change_batch_size: bool = False
    max_steps: int = 0  # stops earlier, with the schedule of the whole run; 0: off
    log_every_steps: int = 10
    micro_batches: int = 1  # parts of a batch that are computed one after the other
    # Train steps that the devices do in one call; the log and a stop signal then wait for all of
    # them. For models so small that the host is what takes the time. 0: chosen (run/plan.py), 1 but
    # for long runs of tiny models.
    steps_per_dispatch: int = 0
    # bfloat16 and float16 models: gradients of weights leave the products as float32 and are summed
    # over rows and devices as such, or in the compute dtype; auto: float32 on several CPU devices,
    # where XLA sums in float32 anyway. On other devices twice the bytes of the gradients' sum.
    gradient_sums: GradientSums = 'auto'
    # cgar: fewer cycles in training until 30 % and 60 % of the steps (curriculum.py). Evaluation
    # always runs those of the model.
    curriculum: Curriculum = 'none'
    curriculum_shares: tuple[float, ...] = (0.3, 0.6)
    # When a run begins with the weights of another one: what to do with a puzzle table of
    # another size (puzzle_table.py).
    puzzle_table: PuzzleTableChoice = 'error'
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()

    def __post_init__(self):
        check_fields(self, 'train.')
        require_positive(**{
            f'train.{name}': getattr(self, name)
            for name in ('global_batch_size', 'epochs', 'log_every_steps', 'micro_batches')
        })  # fmt: skip
        require_not_negative(**{
            'train.eval_interval': self.eval_interval, 'train.max_steps': self.max_steps,
            'train.steps_per_dispatch': self.steps_per_dispatch,
        })  # fmt: skip
        first, *rest = self.curriculum_shares
        ConfigError.require(
            len(rest) == 1 and 0 <= first <= rest[0] <= 1,
            f'train.curriculum_shares are the two shares of the steps at which a stage ends, in '
            f'[0, 1] and not falling; got {self.curriculum_shares}.',
        )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation: every puzzle runs ``halt_max_steps`` ACT steps, as in the original.

    With ``halting=adaptive`` each leaves as soon as ``act.halting`` halts it, and the next takes
    its slot; the batch size is then the number of slots, best far below that of the puzzles.
    """

    split: str = 'test'
    halting: EvalHalting = 'max'
    # What --mode=eval keeps under <workdir>/predictions: of OUTPUTS; (): nothing.
    save_outputs: tuple[Output, ...] = ('predictions', 'q')
    global_batch_size: int = 0  # 0: the training batch size
    halt_max_steps: int = 0  # 0: as trained
    # Also evaluates at these multiples of that depth, rising; 4 gives the metric acc4x.
    depth_multiples: tuple[int, ...] = ()
    # --mode=eval reads the answers of a model that was trained with 16 ACT steps after 64, too, as
    # if depth_multiples had 4, where nothing else is asked for. It takes four times as long.
    deep: bool = True
    max_examples: int = 0  # 0: the whole split; otherwise the first ones of each set
    # In place of max_examples: a drawn subset of each set, named by its size and its own seed,
    # random1000-seed0; the same puzzles in every run. Empty: none.
    subset: str = ''
    use_ema: bool = True  # evaluates the moving average where the run keeps one
    # How the state is started and moved at inference; -1: as in training (config/model.py).
    random_start: bool = False  # also of models that were trained from a fixed one
    high_start_std: float = -1.0
    low_start_std: float = -1.0
    update_rate: float = -1.0
    update_noise: float = -1.0
    high_step_noise: float = -1.0
    low_step_noise: float = -1.0
    dropout: float = -1.0  # -1: none, unless model.dropout_at_inference; all rates at once
    # Of candidate sets; -1: as in training (config/lattice.py).
    eliminate_below: float = -1.0
    conflict_above: float = -1.0
    chains: int = 1  # of a model with several: 1: the first alone; more: the first to halt answers
    flow_noise: float = 0.0  # how far the sampler of a looped flow steps back (its paper's g)
    # blank: every puzzle is answered with the blank identifier, for data sets whose identifiers
    # stand for other puzzles than those of the training set. random: with that of another puzzle,
    # drawn by the seed. What an identifier is worth is the distance of these from own.
    identifiers: Identifiers = 'own'
    rollouts: RolloutConfig = RolloutConfig()

    def __post_init__(self):
        require_not_negative(**{
            f'eval.{name}': getattr(self, name)
            for name in ('global_batch_size', 'halt_max_steps', 'max_examples', 'flow_noise')
        })  # fmt: skip
        check_fields(self, 'eval.')
        ConfigError.require(
            self.halting == 'max' or not (self.depth_multiples or 'logits' in self.save_outputs),
            'eval.halting=adaptive knows each puzzle at its own last step only; it can neither go '
            'deeper nor keep logits. Use eval.halting=max, or leave eval.depth_multiples and '
            "'logits' out.",
        )
        rising = (1, *self.depth_multiples)
        ConfigError.require(
            all(a < b for a, b in itertools.pairwise(rising)),
            f'eval.depth_multiples must be above 1 and rise; got {self.depth_multiples}.',
        )
        ConfigError.require(
            not self.subset or bool(_SUBSET.fullmatch(self.subset)),
            f'eval.subset must be randomCOUNT-seedSEED, such as random1000-seed0; got '
            f'{self.subset!r}.',
        )
        ConfigError.require(
            not (self.subset and self.max_examples),
            f'eval.subset and eval.max_examples both limit an evaluation; got {self.subset!r} and '
            f'{self.max_examples}. Leave one of them out.',
        )

    @property
    def drawn(self) -> tuple[int, int] | None:
        """Number of puzzles and seed of ``subset``; None: there is none."""
        match = _SUBSET.fullmatch(self.subset)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def depth_metrics(self) -> tuple[str, ...]:
        """Names of the exact accuracies at the multiples of the usual depth: acc4x."""
        return tuple(f'acc{multiple}x' for multiple in self.depth_multiples)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are written and kept."""

    every_steps: int = 0  # besides those at every evaluation and at the end; 0: only those
    keep_latest: int = 2
    keep_best: int = 1
    # Newest ones whose training loss had not risen, to branch from when a run diverges.
    keep_healthy: int = 2
    best_metric: str = 'eval/all/exact_accuracy'
    best_mode: Direction = 'max'
    directory: str = ''  # holds checkpoints/ in place of the workdir; gs:// and the like too

    def __post_init__(self):
        check_fields(self, 'checkpoint.')
        require_positive(**{'checkpoint.keep_latest': self.keep_latest})
        require_not_negative(**{
            'checkpoint.every_steps': self.every_steps,
            'checkpoint.keep_best': self.keep_best,
            'checkpoint.keep_healthy': self.keep_healthy,
        })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Where metrics go besides the console and metrics.jsonl."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = 'hrm_jax'


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One experiment, whole."""

    name: str = 'experiment'
    seed: int = 0
    model: ModelConfig = ModelConfig()
    act: ActConfig = ActConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        require_not_negative(seed=self.seed)
        ConfigError.require(
            self.train.eval_interval == 0 or self.train.epochs % self.train.eval_interval == 0,
            f'train.epochs must be a multiple of train.eval_interval; got {self.train.epochs} '
            f'and {self.train.eval_interval}.',
        )
        ConfigError.require(
            not self.optimizer.freeze_weights or self.model.has_puzzle_table,
            'optimizer.freeze_weights trains the puzzle table only, and model.puzzle_emb_ndim=0 '
            'means that there is none. Leave it out, or give puzzles an embedding.',
        )
        ConfigError.require(
            self.model.q_head
            or self.model.q_confidence
            or self.model.lattice.on
            or (self.act.halting in ('fixed', 'random') and self.loss.q_weight == 0),
            f'model.q_head=False needs act.halting=fixed and loss.q_weight=0, as nothing predicts '
            f'when to halt; got {self.act.halting} and {self.loss.q_weight}.',
        )
        ConfigError.require(
            not self.model.q_confidence or self.act.halting in ('fixed', 'random'),
            f'model.q_confidence is a probability, not a decision: act.halting must be random or '
            f'fixed; got {self.act.halting}.',
        )
        ConfigError.require(
            self.loss.anchor_weight == 0
            or (
                self.model.has_symbols
                and self.model.symbol_input == 'roles'
                and self.model.initial_state != 'random'
            ),
            f'loss.anchor_weight={self.loss.anchor_weight} starts from answers in the vectors of '
            f'the roles, and from the fixed low state: set model.symbol_exchange, '
            f'model.symbol_input=roles, and another initial_state than random.',
        )
        recurrent = self.model.is_recurrent
        ConfigError.require(
            not recurrent or (self.optimizer.name != 'muon' and self.train.curriculum == 'none'),
            f'model.block={self.model.block} has stacked gates in place of matrices and one cycle '
            f'in each ACT step: neither optimizer.name=muon nor a train.curriculum fits it.',
        )
        random_start = self.eval.random_start or self.model.initial_state == 'random'
        ConfigError.require(
            random_start or max(self.eval.high_start_std, self.eval.low_start_std) < 0,
            'eval.high_start_std and eval.low_start_std are of random starts. Set '
            'eval.random_start=True too, or leave them out.',
        )
        ConfigError.require(
            1 <= self.eval.chains <= self.model.chains,
            f'eval.chains must be at least 1 and at most model.chains, as each has a start of its '
            f'own; got {self.eval.chains} and {self.model.chains}.',
        )
        ConfigError.require(
            self.model.chains == 1
            or self.act.halting != 'q_learning'
            or not self.act.train_q_continue,
            'model.chains needs act.halting=halt_only or fixed (or act.train_q_continue=False): '
            'the target of q_continue is read one step later, whose winner is not known yet.',
        )
        if self.model.flow:
            self._check_flow()
        lattice.check_experiment(self)
        _ = self.inference_model  # refuses here what it would refuse at the first evaluation
        rollouts.check(self)

    def _check_flow(self) -> None:
        ConfigError.require(
            self.act.halting != 'q_learning' or not self.act.train_q_continue,
            'model.flow needs act.halting=halt_only or fixed (or act.train_q_continue=False): the '
            'target of q_continue is read one step later, whose noisy answer is not known yet.',
        )
        ConfigError.require(
            self.loss.loss_type == 'stablemax_cross_entropy',
            f'model.flow reads its answers as stablemax probabilities: it needs loss.loss_type='
            f'stablemax_cross_entropy; got {self.loss.loss_type}.',
        )
        ConfigError.require(
            self.model.flow_draws >= self.act.halt_max_steps,
            f'model.flow_draws must be at least act.halt_max_steps, a time for every step; got '
            f'{self.model.flow_draws} and {self.act.halt_max_steps}.',
        )
        ConfigError.require(
            not self.eval.depth_multiples,
            'a looped flow (model.flow) reaches its answer at its last step, and deeper ones have '
            'other times: evaluate with another eval.halt_max_steps, not eval.depth_multiples.',
        )

    @property
    def chooses_answers(self) -> bool:
        """Whether evaluation and solver run chains of a puzzle and choose among them."""
        return self.eval.rollouts.on or self.model.lattice.on

    @property
    def loader_hint_prob(self) -> float:
        """``data.hint_prob`` of the loader; candidate sets draw their hints in the step."""
        return 0.0 if self.model.lattice.on else self.data.hint_prob

    @property
    def eval_batch_size(self) -> int:
        """Rows of an evaluation batch."""
        return self.eval.global_batch_size or self.train.global_batch_size

    @property
    def eval_steps(self) -> int:
        """ACT steps of an evaluation: the one place that states how deep it is."""
        return self.eval.halt_max_steps or self.act.halt_max_steps

    @property
    def inference_model(self) -> ModelConfig:
        """The model as evaluation and solver run it: with the draws that ``eval`` states."""
        names = ('high_start_std', 'low_start_std', 'update_rate', *NOISES)
        changes: dict[str, Any] = {
            name: getattr(self.eval, name) for name in names if getattr(self.eval, name) >= 0
        }
        if self.model.initial_state in ('random_low', 'random_in_training'):
            changes['initial_state'] = 'fixed'
        if self.eval.random_start:
            changes['initial_state'] = 'random'
        if self.model.chains > 1:
            changes |= {'chains': self.eval.chains, 'chain_similarity': 1.0, 'align_chains': False}
        if self.model.flow:
            changes |= {'flow_steps': self.eval_steps, 'flow_noise': self.eval.flow_noise}
        if self.eval.dropout >= 0:
            rate = self.eval.dropout
            changes |= {'dropout': rate, 'attention_dropout': rate, 'dropout_at_inference': True}
        if self.model.lattice.on:
            names = ('eliminate_below', 'conflict_above')
            given = {n: getattr(self.eval, n) for n in names if getattr(self.eval, n) >= 0}
            changes['lattice'] = dataclasses.replace(self.model.lattice, restarts=True, **given)
        return dataclasses.replace(self.model, **changes) if changes else self.model

    def with_eval_steps(self, steps: int) -> 'ExperimentConfig':
        """Returns this experiment with another depth of evaluations; 0: as it is."""
        if not steps:
            return self
        return dataclasses.replace(self, eval=dataclasses.replace(self.eval, halt_max_steps=steps))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: typing.Mapping[str, Any]) -> 'ExperimentConfig':
        """Builds the configuration from nested mappings (a ConfigDict, or parsed JSON).

        Raises:
          ConfigError: an unknown key (the nearest known one is named), a value of another
            type than the field's, or settings that contradict each other.
        """
        return parsing.build(cls, values, path='')

    @classmethod
    def from_json(cls, text: str) -> 'ExperimentConfig':
        """Builds the configuration from the text of a config.json.

        Raises:
          ConfigError: it is not JSON with an object, or see ``from_dict``.
        """
        return cls.from_dict(files.parse_json(text, 'a configuration', ConfigError, dict))


def default_config_dict():
    """Returns the defaults as a locked ``ml_collections.ConfigDict``, for files in configs/."""
    from ml_collections import config_dict  # human side only: the core runs without it

    return config_dict.ConfigDict(ExperimentConfig().to_dict())
