"""Results as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.benchmark.rounds import LIMIT

COLUMNS = (
    ('config', 'config'), ('positions', 'positions'), ('rows', 'rows'), ('dtype', 'dtype'),
    ('attention', 'attention'), ('program', 'program'), ('side', 'side'),
    ('runs_per_second', 'runs/s'), ('examples_per_second', 'examples/s'), ('tflops', 'TFLOP/s'),
    ('of_products', '% of products'), ('of_copies', '% of copies'), ('gib', 'GiB'),
    ('ratio', 'time / original'), ('ratio_of_fastest', 'of the fastest'),
    ('other_work', 'cores of others'), ('rounds_left_out', 'rounds left out'), ('notes', 'notes'),
)  # fmt: skip


def _text(name: str, value: Any) -> str:
    if value in (None, '', {}):
        return ''
    if name == 'other_work':
        return f'{value:.2f}'
    if name.startswith('of_'):
        return f'{100 * value:.1f}'
    if name.startswith('ratio'):
        return f'{value:.3f}'
    if isinstance(value, Mapping):
        text = ', '.join(f'{k}: {v}' for k, v in value.items())
        return ' '.join(text.split()).replace('|', '/')
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def rows(results: Iterable[Mapping[str, Any]]) -> str:
    """A table of results; columns in which nothing stands are left out."""
    results = [{key: _text(key, result.get(key)) for key, _ in COLUMNS} for result in results]
    used = [(key, title) for key, title in COLUMNS if any(r[key] for r in results)]
    lines = ['| ' + ' | '.join(title for _, title in used) + ' |', '|' + ' --- |' * len(used)]
    lines += ['| ' + ' | '.join(r[key] for key, _ in used) + ' |' for r in results]
    return '\n'.join(lines)


def page(report: Mapping[str, Any]) -> str:
    """The whole report as Markdown."""
    machine = ', '.join(f'{k} {v}' for k, v in report['machine'].items() if v)
    ceilings = '\n'.join(
        f'- matrix products, {dtype}: {value / 1e12:.4g} TFLOP/s'
        for dtype, value in report['ceilings']['products'].items()
    )
    return f"""# Benchmark of {report['date']}

    {report['command']}

{machine}.

Ceilings of one device, the best of what was measured before, between and after:

{ceilings}
- copies (read and written): {report['ceilings']['copies'] / 1e9:.4g} GB/s

{rows(report['results'])}

Medians of rounds that alternate between the sides; a run is one train step, one evaluation of a
batch with all its ACT steps, one queue of puzzles, or one batch. TFLOP/s counts the matrix products
that cannot be avoided (hrm_jax/model/flops.py), on both sides the same; % of copies is the memory
traffic that XLA counts. GiB is on our side what the compiled program needs on one device, on
the original's the most that torch had in use (on a CPU: the whole process). time / original:
below 1 ours is faster than the original in eager mode (medians; then fastest of the rounds). Both
sides had the same cores and number of threads on a CPU. Cores of others: what other programs used
of the machine during the rounds that count, mean; rounds with more than {LIMIT} were measured again
and left out, unless hardly any other was to be had (notes).
"""
