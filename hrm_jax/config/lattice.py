"""Settings of candidate sets: what is eliminated, pinned, and held for a contradiction."""

import dataclasses
from typing import Any, Literal

from hrm_jax.config.checks import check_fields, require_not_negative, require_positive
from hrm_jax.errors import ConfigError

CandidateViews = Literal['none', 'digits', 'board', 'digits+board']


@dataclasses.dataclass(frozen=True)
class LatticeConfig:
    """Candidate sets as input, state and output (model/lattice.py; LDT, arXiv 2605.08605).

    The state of a cell is the set of symbols that may still stand in it. A step is one call of the
    model, whose block is applied ``model.L_cycles`` times; then improbable candidates are
    eliminated, and one open cell is pinned to one of its candidates.
    """

    on: bool = False
    # Cells of a question with another token are given. The others begin with these candidates (():
    # all symbols; mazes: free and path).
    open_token: int = 1
    open_candidates: tuple[int, ...] = ()
    eliminate_below: float = 0.1  # probability below which a candidate is eliminated
    conflict_above: float = 0.5  # probability above which a state counts as contradictory
    pin_temperature: float = 1.5  # of the draw of a pinned cell's symbol
    # Symmetry drawn for every call and row: another order of the symbols, one of 8 of the board.
    views: CandidateViews = 'digits+board'
    # A contradictory state starts again from its question; off in training.
    # ExperimentConfig.inference_model sets it.
    restarts: bool = False

    def __post_init__(self):
        check_fields(self, 'model.lattice.')
        require_positive(**{'model.lattice.pin_temperature': self.pin_temperature})
        require_not_negative(**{'model.lattice.open_token': self.open_token})
        for name in ('eliminate_below', 'conflict_above'):
            value = getattr(self, name)
            ConfigError.require(
                0 < value < 1,
                f'model.lattice.{name} is a probability between 0 and 1; got {value}.',
            )


def check(model: Any) -> None:
    """Checks a ``ModelConfig`` with candidate sets, and what they leave out.

    Raises:
      ConfigError: its settings contradict each other.
    """
    ConfigError.require(
        model.lattice.on or model.pos_encodings not in ('rows+columns', 'rope2d_pairs'),
        f'model.pos_encodings={model.pos_encodings} is of candidate sets: set '
        f'model.lattice.on=True, or use other positions.',
    )
    if not model.lattice.on:
        return
    ConfigError.require(
        model.block == 'transformer'
        and model.levels == 'single'
        and not model.closing_update
        and (model.H_cycles, model.low_states) == (1, 1)
        and model.gradient_window == 'full',
        f'model.lattice loops one stack of blocks, model.L_cycles times, and learns from every '
        f'loop: set block=transformer, levels=single, H_cycles=1, closing_update=False and '
        f'gradient_window=full; got {model.block}, {model.levels}, {model.H_cycles}, '
        f'{model.closing_update} and {model.gradient_window}.',
    )
    ConfigError.require(
        model.pos_encodings in ('rows+columns', 'rope2d_pairs', 'none'),
        f'model.lattice knows the positions rows+columns, rope2d_pairs and none; got '
        f'model.pos_encodings={model.pos_encodings}.',
    )
    ConfigError.require(
        model.added_tokens == 1 and model.prefix_len == 0 and model.puzzle_emb_ndim == 0,
        f'model.lattice reads its conflicts at one slot after the cells and knows no other: set '
        f'model.added_tokens=1, puzzle_emb_ndim=0 and register_tokens=0; got '
        f'{model.added_tokens}, {model.puzzle_emb_ndim} and {model.register_tokens}.',
    )
    ConfigError.require(
        not (model.has_symbols or model.flow or model.running_mean or model.chains > 1),
        'model.lattice has sets of candidates for a state: model.symbol_exchange, flow, '
        'running_mean and chains work on vectors. Leave them out (chains of a puzzle are '
        'eval.rollouts).',
    )
    ConfigError.require(
        model.initial_state == 'fixed' and model.update_rate == 1 and not model.has_noise,
        f'model.lattice starts from the candidates of the question, which are neither drawn nor '
        f'damped: leave out initial_state={model.initial_state}, update_rate and noise.',
    )
    ConfigError.require(
        not (model.q_head or model.q_confidence),
        'model.lattice has a head for conflicts in place of Q: set model.q_head=False.',
    )
    if not (model.vocab_size and model.seq_len):
        return
    height, width = model.board_shape
    ConfigError.require(
        model.num_symbols > 1 and height * width == model.seq_len,
        f'model.lattice needs a board of whole rows and two symbols or more; got {model.seq_len} '
        f'cells, {width} in a row, and {model.num_symbols} symbols.',
    )
    ConfigError.require(
        'board' not in model.lattice.views or height == width,
        f'model.lattice.views={model.lattice.views} turns the board, which must be square; got '
        f'{height} x {width}. Use views=digits or none.',
    )
    ConfigError.require(
        'digits' not in model.lattice.views or not model.lattice.open_candidates,
        'model.lattice.views=digits exchanges all symbols, and open_candidates names some of '
        'them: use views=board or none.',
    )
    low, high = model.first_symbol, model.vocab_size
    ConfigError.require(
        all(low <= token < high for token in model.lattice.open_candidates),
        f'model.lattice.open_candidates must be symbols, {low} to {high - 1}; got '
        f'{model.lattice.open_candidates}.',
    )


def check_experiment(experiment: Any) -> None:
    """Checks the rest of an ``ExperimentConfig`` against candidate sets.

    Raises:
      ConfigError: they contradict each other.
    """
    act, loss, data, section = experiment.act, experiment.loss, experiment.data, experiment.eval
    inference = (section.eliminate_below, section.conflict_above)
    if not experiment.model.lattice.on:
        ConfigError.require(
            act.halting != 'solved',
            'act.halting=solved stops at one candidate in every cell: set model.lattice.on=True, '
            'or use another rule.',
        )
        ConfigError.require(
            max(inference) < 0 and data.wrong_hint_prob == 0,
            'eval.eliminate_below, eval.conflict_above and data.wrong_hint_prob are of candidate '
            'sets: set model.lattice.on=True, or leave them out.',
        )
        return
    ConfigError.require(
        act.halting == 'solved' and act.halt_exploration_prob == 0 and loss.q_weight == 0,
        f'model.lattice replaces puzzles that are solved, in conflict or old: set act.halting='
        f'solved, act.halt_exploration_prob=0 and loss.q_weight=0; got {act.halting}, '
        f'{act.halt_exploration_prob} and {loss.q_weight}.',
    )
    ConfigError.require(
        section.halting == 'adaptive' and not section.depth_multiples,
        f'a puzzle of model.lattice is done when it is solved, and further steps would search on: '
        f'set eval.halting=adaptive and no eval.depth_multiples; got {section.halting} and '
        f'{section.depth_multiples}.',
    )
    ConfigError.require(
        experiment.train.curriculum == 'none' and loss.anchor_weight == 0,
        f'model.lattice has neither cycles for train.curriculum={experiment.train.curriculum} nor '
        f'a latent state for loss.anchor_weight={loss.anchor_weight}: leave them out.',
    )
    ConfigError.require(
        experiment.train.micro_batches == 1,
        f'the loss of model.lattice is a mean over the open cells of the whole batch, so '
        f'train.micro_batches must be 1; got {experiment.train.micro_batches}.',
    )
