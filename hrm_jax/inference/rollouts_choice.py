"""Which chain of a rollout gives the answer. Labels are unknown here.

============= =====================================================================================
selection     chain
============= =====================================================================================
q             of the greatest halting logit (PTRM, arXiv 2605.19943: best-Q)
vote          of the most frequent whole answer; the first one to come where several are (EqR,
              evaluators/eval_fn.py; PTRM: mode)
halted_vote   ``vote`` over the chains that the halting rule has halted at their last step; over all
              where it has halted none (Augmented HRM, arXiv 2601.10679, without its oracle)
residual      whose logits changed least over the last ``eval.rollouts.window`` steps (EqR)
rules         ``vote`` over the chains whose answers obey the rules of the task; over all where none
              does
first_halt    that halted at the earliest step, of several the one with the greatest halting logit;
              the first chain where none has halted (SIC, arXiv 2601.19085)
first_chain   that halted at the earliest step, of several the first (LDT, arXiv 2605.08605)
============= =====================================================================================
"""

from collections.abc import Callable
import dataclasses
import typing

import numpy as np

from hrm_jax import act
from hrm_jax.config import ActConfig
from hrm_jax.config.rollouts import Selection


@dataclasses.dataclass(frozen=True)
class Chains:
    """The chains of one puzzle, in the order of their numbers.

    Attributes:
      predictions: int [C, S], the most probable tokens, mapped back from their views.
      answers: int [C, S], the same without what is written where nothing is scored.
      q_halt, q_continue: float32 [C], at the last step.
      steps: int [C], ACT steps.
      change: float32 [C], mean of the last changes of the logits; NaN unless selected by them.
    """

    predictions: np.ndarray
    answers: np.ndarray
    q_halt: np.ndarray
    q_continue: np.ndarray
    steps: np.ndarray
    change: np.ndarray


def has_halted(chains: Chains, rule: ActConfig) -> np.ndarray:
    """Which chains the halting rule halts after their last step, whatever its number; bool [C]."""
    if rule.halting == 'random':  # lots are drawn in training only
        return np.zeros(len(chains.q_halt), bool)
    return np.asarray(act.wants_to_halt(chains.q_halt, chains.q_continue, rule))


def ballot(answers: np.ndarray, chains: np.ndarray) -> list[list[int]]:
    """Groups chains by their answer: [[chain, ...], ...], each in the order of first appearance."""
    votes: dict[bytes, list[int]] = {}
    for chain in chains.tolist():
        votes.setdefault(answers[chain].tobytes(), []).append(chain)
    return list(votes.values())


def vote(answers: np.ndarray, chains: np.ndarray) -> int:
    """Returns the first chain, of some, with their most frequent answer."""
    return max(ballot(answers, chains), key=len)[0]


def _first_halt(chains: Chains, halted: np.ndarray, surest: bool = True) -> int:
    if not halted.any():
        return 0
    q_halt = chains.q_halt if surest else np.zeros_like(chains.q_halt)
    return min(np.flatnonzero(halted).tolist(), key=lambda c: (chains.steps[c], -q_halt[c]))


def choose(
    selection: Selection,
    chains: Chains,
    rule: ActConfig,
    is_valid: Callable[[np.ndarray], bool | None],
) -> int:
    """Returns the number of the chain that gives the answer.

    Args:
      selection: see the table of the module.
      chains: of one puzzle.
      rule: that halts the model.
      is_valid: whether an answer obeys the rules of the task, for ``rules``.
    """
    everyone = np.arange(len(chains.answers))
    match selection:
        case 'q':
            return int(chains.q_halt.argmax())
        case 'vote':
            return vote(chains.answers, everyone)
        case 'halted_vote':
            halted = np.flatnonzero(has_halted(chains, rule))
            return vote(chains.answers, halted if len(halted) else everyone)
        case 'residual':
            return int(chains.change.argmin())
        case 'rules':
            groups = ballot(chains.answers, everyone)
            allowed = [group for group in groups if is_valid(chains.answers[group[0]])]
            return max(allowed or groups, key=len)[0]
        case 'first_halt':
            return _first_halt(chains, has_halted(chains, rule))
        case 'first_chain':
            return _first_halt(chains, has_halted(chains, rule), surest=False)
    typing.assert_never(selection)
