"""Settings of rollouts: several chains for each puzzle, one of which gives the answer."""

import dataclasses
from typing import Any, Literal

from hrm_jax.config.checks import check_fields, require_positive
from hrm_jax.config.model import ModelConfig
from hrm_jax.errors import ConfigError

Selection = Literal[
    'q', 'vote', 'halted_vote', 'residual', 'rules', 'first_halt', 'first_chain',
]  # fmt: skip
Views = Literal['none', 'random', 'relabel']
_NEED_Q = ('q', 'halted_vote', 'first_halt', 'first_chain')


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Breadth at inference; the depth is that of the evaluation (``eval.halt_max_steps``).

    A chain is one run of a puzzle, with random draws of its own (``eval.random_start``,
    ``eval.*_noise``), a view of its own, or both. ``eval.halting`` states when a chain stops: all
    at the last step (``max``), or each by ``act.halting`` (``adaptive``). Labels never take part in
    choosing. How each selection chooses: inference/rollouts_choice.py.
    """

    breadth: int = 1  # chains of each puzzle and checkpoint
    select: Selection = 'q'
    # random: every chain but the first answers a random symmetric puzzle, mapped back; relabel:
    # chain k answers the Sudoku whose digits are shifted by k (Augmented HRM).
    views: Views = 'none'
    window: int = 3  # residual: last changes of the logits that count
    halt_together: bool = False  # all chains of a puzzle stop when its first one halts
    # More checkpoints of the same model whose chains take part, for hrm-jax eval: steps of the
    # workdir, or checkpoints of any format.
    checkpoints: tuple[str, ...] = ()

    def __post_init__(self):
        check_fields(self, 'eval.rollouts.')
        require_positive(**{
            'eval.rollouts.breadth': self.breadth, 'eval.rollouts.window': self.window
        })  # fmt: skip

    @property
    def on(self) -> bool:
        """Whether there is anything to choose from."""
        return self.breadth > 1 or bool(self.checkpoints)


def is_random(model: ModelConfig) -> bool:
    """Whether two chains of a model differ although they see the same puzzle."""
    starts = max(model.high_start_std, model.low_start_std)
    masks = model.has_dropout and model.dropout_at_inference
    return (
        model.lattice.on
        or masks
        or model.has_noise
        or (model.initial_state == 'random' and starts > 0)
    )


def check(experiment: Any) -> None:
    """Checks the settings against the rest of an ``ExperimentConfig``.

    Raises:
      ConfigError: they contradict each other.
    """
    section, rollouts = experiment.eval, experiment.eval.rollouts
    if not rollouts.on:
        return
    ConfigError.require(
        rollouts.breadth == 1 or rollouts.views != 'none' or is_random(experiment.inference_model),
        f'eval.rollouts.breadth={rollouts.breadth} needs chains that differ, and this model draws '
        f'nothing at inference. Set eval.random_start=True, eval.high_step_noise (or another noise '
        f'of eval), or eval.rollouts.views.',
    )
    has_q = experiment.model.has_halt_logit
    ConfigError.require(
        has_q or rollouts.select not in _NEED_Q,
        f'eval.rollouts.select={rollouts.select} chooses by the halting logits, and '
        f'model.q_head=False has none. Use vote, residual or rules.',
    )
    first = rollouts.select in ('first_halt', 'first_chain')
    by_halting = first or rollouts.select == 'halted_vote' or rollouts.halt_together
    ConfigError.require(
        not by_halting or experiment.act.halting not in ('fixed', 'random'),
        f'eval.rollouts.select=halted_vote, first_halt or first_chain and '
        f'eval.rollouts.halt_together need a halting rule, and at inference '
        f'act.halting={experiment.act.halting} only halts at the last step. Use another selection.',
    )
    early = first or rollouts.halt_together
    ConfigError.require(
        not early or section.halting == 'adaptive',
        'eval.rollouts.select=first_halt or first_chain and eval.rollouts.halt_together need '
        'chains that stop when they halt: set eval.halting=adaptive.',
    )
    ConfigError.require(
        rollouts.select != 'residual' or experiment.eval_steps > 1,
        'eval.rollouts.select=residual compares steps, so eval.halt_max_steps must be above 1.',
    )
    ConfigError.require(
        'logits' not in section.save_outputs,
        "eval.rollouts keeps the chosen answers, not logits: leave 'logits' out of "
        'eval.save_outputs.',
    )
