"""What a puzzle identifier is worth: answers with the own, the blank and another one's identifier.

A model with a puzzle table reads, beside the question, a vector that it learned for this very
puzzle. How much of its score that vector carries is seen where it is taken away (the blank
identifier, which no puzzle of training has) or exchanged (that of a random other puzzle).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from hrm_jax import eval_step, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline
from hrm_jax.data.puzzles import PuzzleDataset, PuzzleSet, stored_examples
from hrm_jax.errors import ConfigError
from hrm_jax.scoring import arc, arc_names, collect
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Weights

OTHERS = ('blank', 'random')  # beside 'own'


@functools.lru_cache(maxsize=4)
def others(rows: int, seed: int) -> np.ndarray:
    """Returns a random other identifier for each: int32 [rows]; the blank one, 0, stays.

    Raises:
      ConfigError: there are no two puzzles.
    """
    ConfigError.require(
        rows > 2,
        f'eval.identifiers=random needs the identifiers of at least two puzzles; the model has '
        f'{max(rows - 1, 0)}. Use own or blank.',
    )
    shift = np.random.default_rng([seed, rows]).integers(1, rows - 1, rows)
    own = np.arange(rows)
    return np.where(own > 0, 1 + (own - 1 + shift) % (rows - 1), 0).astype(np.int32)


def asked(kind: str, ids_B: Any, rows: int, seed: int) -> Any:
    """Returns the identifiers that the model gets.

    Args:
      kind: of ``eval.identifiers``.
      ids_B: int32, the own ones, on the host or on the mesh.
      rows: of the puzzle table.
      seed: draws the other ones.
    """
    match kind:
        case 'own':
            return ids_B
        case 'blank':
            return ids_B * 0
        case 'random':
            table = others(rows, seed)
            if isinstance(ids_B, np.ndarray):
                return table[ids_B]
            return jax.jit(lambda ids: jnp.asarray(table)[ids])(ids_B)
    raise ValueError(f'no identifiers called {kind!r}')


def worth(
    config: ExperimentConfig, weights: Weights, dataset: PuzzleDataset, mesh: Mesh
) -> dict[str, float]:
    """Answers the ARC puzzles of a split without augmentation, under other identifiers.

    These are few puzzles, so that it costs next to nothing beside the evaluation. What they compare
    with are ``arc/hrm_single@1`` and ``arc/trm_single@1``, the same puzzles under their own
    identifiers. (``eval.identifiers`` answers everything so, with augmentations and votes.)

    Args:
      config: with the sizes of the data.
      weights: on the mesh.
      dataset: the split.
      mesh: where to run.

    Returns:
      ``eval/<set>/arc/hrm_blank_id@1`` and its like, shares in 0..1; {} where there are no
      identifiers of ARC puzzles, or the evaluation is none of single answers at one depth.
    """
    section = config.eval
    if (
        dataset.metadata.task != 'arc'
        or not (config.model.has_puzzle_table and dataset.has_answers)
        or config.model.num_puzzle_identifiers < 3
        or section.identifiers != 'own'
        or section.halting != 'max'
        or section.rollouts.on
    ):
        return {}
    maps = arc_names.find(dataset)
    assert maps is not None  # of a data set there always are
    config = dataclasses.replace(config, eval=dataclasses.replace(section, depth_multiples=()))
    step = eval_step.make_eval_step(config, mesh)
    values = {}
    for name, puzzles in dataset.sets.items():
        examples = pipeline.eval_examples(puzzles, section.max_examples, section.drawn)
        ids = _identifiers(puzzles, examples)
        plain = maps.is_original[ids] & (maps.base_of[ids] >= 0)
        examples, ids = examples[plain], ids[plain]
        if not len(examples):
            continue
        inputs, labels = stored_examples(puzzles, dataset.metadata, examples)
        limited = bool(section.max_examples or section.drawn)
        truth = None if limited else collect.truth_of(dataset, maps, [name])
        for kind in OTHERS:
            given = asked(kind, ids, config.model.num_puzzle_identifiers, config.seed)
            scorer = arc.ArcScorer(maps, truth=truth)
            predictions, q_halt = _answers(config, step, weights, inputs, given, mesh)
            scorer.add(ids, inputs, labels if limited else None, predictions, q_halt)
            result = scorer.result()
            values[f'eval/{name}/arc/hrm_{kind}_id@1'] = result.single_hrm[1]
            values[f'eval/{name}/arc/trm_{kind}_id@1'] = result.single_trm[1]
    return values


def _identifiers(puzzles: PuzzleSet, examples: np.ndarray) -> np.ndarray:
    owners, _ = puzzles.owners(examples)
    return puzzles.puzzle_identifiers[owners]


def _answers(
    config: ExperimentConfig, step: Any, weights: Weights, inputs, ids, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions [N, S] and halting logits [N]; every process gets all of them."""
    size = config.eval_batch_size
    rows = partitioning.process_rows(mesh, size)
    found = []
    for first in range(0, len(inputs), size):
        real = min(size, len(inputs) - first)
        batch = Batch(
            inputs=np.zeros((size, inputs.shape[1]), np.int32),
            labels=np.full((size, inputs.shape[1]), IGNORE_LABEL_ID, np.int32),
            puzzle_identifiers=np.zeros(size, np.int32),
        )
        batch.inputs[:real] = inputs[first : first + real]
        batch.puzzle_identifiers[:real] = ids[first : first + real]
        placed = partitioning.put_global(jax.tree.map(lambda leaf: leaf[rows], batch), mesh)
        result = step(weights, placed, config.seed, first)
        answered = partitioning.to_host((result.predictions, result.q_halt))
        found.append([part[:real] for part in answered])
    predictions, q_halt = (np.concatenate(part) for part in zip(*found, strict=True))
    return predictions, q_halt
