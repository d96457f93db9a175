"""Text about a run: parameters, memory, steps, size of a checkpoint."""

from collections.abc import Callable, Mapping
import math
from typing import Any

from clu import parameter_overview
import jax
from jax.sharding import Mesh

from hrm_jax import metrics, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.run.plan import Plan
from hrm_jax.types import Batch, TrainState, Weights

_DEPTH = 2  # parts of a name that make a line: H_level/layers_0


def array_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, before any sharding; random keys count as 8."""
    return sum(
        math.prod(leaf.shape) * (getattr(leaf.dtype, 'itemsize', None) or 8)
        for leaf in jax.tree.leaves(tree)
    )


def human(size: float) -> str:
    """Returns bytes with a unit, powers of 1,000: 27.3 MB."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if size < 1000:
            return f'{size:.3g} {unit}'
        size /= 1000
    return f'{size:.3g} TB'


def parameters(weights: Weights) -> str:
    """Returns a table of the trained arrays, one line per part of the model.

    The backbone is all but the puzzle table; papers quote either number as that of a model.
    """
    lines: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights.params):
        name = '/'.join(str(key.key) for key in path[:_DEPTH])
        lines[name] = lines.get(name, 0) + math.prod(leaf.shape)
    total = parameter_overview.count_parameters(weights.params)
    table = 0 if weights.puzzle_table is None else math.prod(weights.puzzle_table.shape)
    rows = [*lines.items(), ('backbone', total)]
    rows += [('puzzle table', table)] if table else []
    rows += [('total', total + table)]
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'  {name:<{width}}  {count:>14,}' for name, count in rows)


def abstract_batch(config: ExperimentConfig, mesh: Mesh) -> Batch:
    """Shapes of a training batch on the mesh."""
    rows, cells = config.train.global_batch_size, config.model.seq_len
    sharding = partitioning.batch_sharding(mesh)

    def ints(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, 'int32', sharding=sharding)

    return Batch(inputs=ints(rows, cells), labels=ints(rows, cells), puzzle_identifiers=ints(rows))


def metrics_table(values: Mapping[str, float], config: ExperimentConfig | None = None) -> str:
    """Returns metrics as lines of name, value and meaning.

    Args:
      values: name -> value.
      config: leaves out what its model does not have; None: all are shown.
    """
    shown = values if config is None else metrics.of_model(config, values)
    width = max(map(len, shown), default=0)
    numbers = {name: f'{value:.6g}' for name, value in shown.items()}
    digits = max(map(len, numbers.values()), default=0)
    lines = (f'  {n:<{width}}  {v:<{digits}}  {metrics.meaning(n)}' for n, v in numbers.items())
    return '\n'.join(text.rstrip() for text in lines)


def dry_run(
    plan: Plan,
    abstract: TrainState,
    train_step: Callable[..., Any],
    time_steps: Callable[[Callable[..., Any]], str] = lambda compiled: '',
) -> str:
    """Compiles the train step and describes what it needs.

    Args:
      plan: of the run.
      abstract: shapes and shardings of the state.
      train_step: the jitted step.
      time_steps: describes how long a run takes, from the compiled step.
    """
    config = plan.config
    lowered = train_step.lower(abstract, abstract_batch(config, plan.mesh))
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    needs = f'state {human(array_bytes(abstract))} in all'
    if memory is not None:
        own = memory.argument_size_in_bytes + memory.output_size_in_bytes
        own -= memory.alias_size_in_bytes  # the donated state is overwritten in place
        needs = (
            f'{human(own + memory.temp_size_in_bytes)} per device while training: '
            f'{human(own)} state and batch, {human(memory.temp_size_in_bytes)} temporary'
        )
    stored = array_bytes([abstract.weights, abstract.opt_state, abstract.ema, abstract.carry])
    saves = config.checkpoint
    kept = saves.keep_latest + saves.keep_best + saves.keep_healthy
    lines = [
        f'parameters:\n{parameters(abstract.weights)}',
        f'memory: {needs}',
        f'steps: {plan.last_step:,} of {config.train.global_batch_size} examples each, '
        f'{plan.number_of_evaluations} evaluations',
        f'checkpoint: {human(stored)} before compression, at most {kept} kept and one being '
        f'written',
        time_steps(compiled),
    ]
    return '\n'.join(filter(None, lines))
