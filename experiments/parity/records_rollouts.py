"""Checks of depth times breadth: EqR's evaluation and PTRM's best-Q through our rollouts.

Sources: locuslab/EqR evaluators/eval_fn.py (evaluate with different_init); TRM with the loop of
PTRM (arXiv 2605.19943). Here the chains run through the slots of early exit, each with the keys of
its own puzzle and chain, and the recorded draws stand in the place of what those keys would give.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import records_eqr
from experiments.parity.core import batch_of
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import OUTPUT_TOLERANCE, experiment, load
from hrm_jax import partitioning
from hrm_jax.config import ExperimentConfig, RolloutConfig
from hrm_jax.inference import rollouts, rollouts_choice
from hrm_jax.model import draws
from hrm_jax.tasks import Task
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights


class _Recorded:
    """Recorded draws by the keys that ask for them: one array [...] for each key."""

    def __init__(self, breadth: int, puzzles: int):
        numbers = jnp.arange(puzzles * breadth)
        self.chains = draws.per_chain(jax.random.key(0), numbers, breadth)
        self._keys, self._values = [], []

    def add(self, keys_C: jax.Array, values_C: np.ndarray) -> None:
        """Adds what the key of each chain gives."""
        self._keys.append(np.asarray(jax.random.key_data(keys_C)))
        self._values.append(np.asarray(values_C, np.float32))

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Lets draws give the recorded arrays; an unknown key gives NaN, which nothing passes."""
        keys = jnp.asarray(np.concatenate(self._keys))
        values = jnp.asarray(np.concatenate(self._values))

        def look_up(asked_B, shape, *_rest):
            data = jax.random.key_data(asked_B)
            found = (data[:, None] == keys).all(-1)
            chosen = values[jnp.argmax(found, axis=1)]
            known = found.any(1).reshape(-1, *[1] * (chosen.ndim - 1))
            return jnp.where(known, chosen, jnp.nan).reshape(shape)

        with (
            mock.patch.object(draws, 'normal', look_up),
            mock.patch.object(draws, 'truncated_normal', look_up),
        ):
            yield


def _run(
    config: ExperimentConfig, weights: Weights, batch: Batch, recorded: _Recorded
) -> list[rollouts.Rollout]:
    """The rollouts of a batch, in its order; fewer slots than chains, so that some are refilled."""
    mesh = partitioning.make_mesh(jax.devices()[:1])
    chains = len(batch.inputs) * config.eval.rollouts.breadth
    runner = rollouts.Runner(config, mesh, max(1, chains // 2), chains)
    task = Task(config.model.seq_len, config.model.vocab_size, pads_are_scored=True)
    found = {}
    with recorded.replayed():
        for part in runner.run([weights], [batch], task, 'none'):
            found |= {one[0].number: one[0] for one in part}
    return [found[number] for number in range(len(batch.inputs))]


def _with_rollouts(config: ExperimentConfig, depth: int, **options: Any) -> ExperimentConfig:
    section = dataclasses.replace(
        config.eval, halt_max_steps=depth, rollouts=RolloutConfig(**options)
    )
    return dataclasses.replace(config, eval=section)


@check(
    arrays=('param/*', 'in/eval/*', 'eval/draw/init_zH', 'eval/scores'),
    fields=('config.lambda_', 'config.noise_scale', 'eval.breadth', 'eval.depth'),
)
def eqr(fixture: Fixture, report: Report) -> None:
    """Depth times breadth: answers, scores, choice, and the metrics of the original."""
    info, batch = fixture.info['eval'], batch_of(fixture.group('in/eval/'))
    config = records_eqr.eqr_experiment(fixture)
    config = _with_rollouts(
        config, info['depth'], breadth=info['breadth'], select='residual', window=info['window']
    )
    model, recorded = config.model, _Recorded(info['breadth'], len(batch.inputs))
    start = draws.key_of('start', recorded.chains)
    for number, name in enumerate(('init_zH', 'init_zL')):
        recorded.add(draws.fold(start, number), fixture.arrays[f'eval/draw/{name}'])
    for number in range(info['depth']):
        noise = iter(fixture.arrays[f'eval/step{number}/draw/noise'])
        key = draws.key_of('update_noise', draws.fold(recorded.chains, number + 1))
        for cycle in range(model.H_cycles):
            for update in range(model.L_cycles + 1):
                recorded.add(draws.fold(draws.fold(key, cycle), update), next(noise))
    found = _run(config, load(fixture, config), batch, recorded)
    logits = fixture.arrays[f'eval/step{info["depth"] - 1}/logits']
    answers = logits.argmax(-1).reshape(len(found), info['breadth'], -1)
    predictions = np.stack([one.chains.predictions for one in found])
    report.equal('rollouts/answers', predictions, answers)
    scores = np.stack([one.chains.change for one in found])
    report.close('rollouts/scores', scores, fixture.arrays['eval/scores'], OUTPUT_TOLERANCE)
    report.equal('rollouts/chosen', [one.chosen for one in found], fixture.arrays['eval/chosen'])
    _compare_metrics(report, fixture.info.get('metrics_from_original_evaluate', {}), batch, found)


def _compare_metrics(
    report: Report, want: dict[str, float], batch: Batch, found: list[rollouts.Rollout]
) -> None:
    """The original's metrics of the chosen, the most frequent, and of all answers."""
    scored = np.asarray(batch.labels) != IGNORE_LABEL_ID
    right, solved = {}, {}
    for name in ('chosen', 'vote'):
        picked = [
            one.chosen
            if name == 'chosen'
            else rollouts_choice.vote(one.chains.predictions, np.arange(len(one.chains.steps)))
            for one in found
        ]
        answers = [one.chains.predictions[p] for one, p in zip(found, picked, strict=True)]
        right[name] = (np.stack(answers) == batch.labels) & scored
        solved[name] = (right[name] == scored).all(1)
    chains = np.stack([one.chains.predictions for one in found])
    exact = ((chains == np.asarray(batch.labels)[:, None]) | ~scored[:, None]).all(2)
    for name, got in (
        ('convergence_top_k/exact_accuracy', solved['chosen'].mean()),
        ('majority_vote/exact_accuracy', solved['vote'].mean()),
        ('majority_vote/accuracy', right['vote'].sum() / scored.sum()),
        ('different_init/any_correct', exact.any(1).mean()),
        ('different_init/avg_pass_rate', exact.mean()),
    ):
        if name in want:
            report.close(f'rollouts/{name}', got, want[name], 1e-6)


@check(arrays=('param/*', 'step0/noise', 'best_q_index', 'best_q_answer'), fields=('sigma', 'K'))
def ptrm(fixture: Fixture, report: Report) -> None:
    """The answer of the greatest halting logit among noisy chains."""
    config, given, chains = experiment(fixture), fixture.group('in/'), fixture.info['K']
    model = dataclasses.replace(config.model, high_step_noise=fixture.info['sigma'])
    config = dataclasses.replace(config, model=model)
    depth = len([name for name in fixture.arrays if name.endswith('/q_halt')])
    config = _with_rollouts(config, depth, breadth=chains, select='q')
    recorded = _Recorded(chains, len(given['inputs']))
    for number in range(depth):
        key = draws.key_of('step_noise', draws.fold(recorded.chains, number + 1))
        recorded.add(draws.fold(key, 0), fixture.arrays[f'step{number}/noise'])
    batch = Batch(
        inputs=given['inputs'],
        labels=given['inputs'],
        puzzle_identifiers=given['puzzle_identifiers'],
    )
    found = _run(config, load(fixture, config), batch, recorded)
    scores = np.concatenate([one.chains.q_halt for one in found])
    want = fixture.arrays[f'step{depth - 1}/q_halt']
    report.close('rollouts/q_halt', scores, want, OUTPUT_TOLERANCE)
    for name, got in (
        ('best_q_index', [one.chosen for one in found]),
        ('best_q_answer', [one.answer for one in found]),
    ):
        report.equal(f'rollouts/{name}', got, fixture.arrays[name])
