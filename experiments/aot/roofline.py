"""The least time of a train step on a machine not at hand, and what holds it up, as a page."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from experiments.aot import pieces
from experiments.aot.build import Compiled
from experiments.aot.targets import Target
from hrm_jax.config import ExperimentConfig
from hrm_jax.files import write_text

_LONGEST = 10
# Measured on an H200 for products and copies of the sizes of the 27M model.
MEASURED = {'H200, measured ceilings': pieces.Ceilings(790e12, 4.3e12, 60e12)}
_INTRODUCTION = """\
# A roofline on paper

The least time that the compiled train step can take on one device, from the program that XLA's
compiler made for it (`make aot AOT='... --roofline=STEM'`); nothing was run. Every fusion, product,
copy and kernel reads its operands from memory and writes its results there, loops as often as they
turn; its time is at least bytes / bandwidth and FLOPs / peak, whichever is longer, and a step's is
their sum. What a TPU copies beside other pieces counts in the bytes, and takes time only where all
bytes together need more. Left out: caches, launches, traffic between devices, FLOPs that are no
matrix products. So a bound is no forecast: it says what the program cannot beat, and which pieces
hold it up.
"""


def ceilings_of(target: Target) -> dict[str, pieces.Ceilings]:
    """Name -> what a device of the target can do: the maker's figures, and measured ones."""
    kind = target.name.partition(':')[0]
    found = {f'{kind}, maker': pieces.KNOWN[kind]}
    return found | (MEASURED if kind == 'h100' else {})


def record(
    config: ExperimentConfig, target: Target, found: Compiled, about: dict[str, Any]
) -> dict[str, Any]:
    """The bounds and the longest memory-bound pieces of a program, for JSON."""
    made = pieces.pieces(found.text)
    sums = {}
    for name, ceilings in ceilings_of(target).items():
        bound = pieces.bound(made, ceilings)
        sums[name] = {
            'seconds': bound.seconds,
            'steps_per_second': 1 / bound.seconds,
            'of_memory': bound.of_memory,
        }
    first = next(iter(ceilings_of(target).values()))
    total = pieces.bound(made, first)
    longest = pieces.grouped(made, first)[:_LONGEST]
    model = config.model
    return {
        **about,
        'target': target.name,
        'config': config.name,
        'rows': config.train.global_batch_size // (found.mesh['data'] * found.mesh['fsdp']),
        'settings': f'{model.forward_dtype}, attention={model.attention}'
        + f', gated_unit_kernel={model.gated_unit_kernel}' * (model.gated_unit_kernel != 'xla')
        + f', norm_kernel={model.norm_kernel}' * (model.norm_kernel != 'xla')
        + ', remat' * model.remat + ', cycles unrolled' * model.unroll_cycles,
        'bytes': total.bytes,
        'flops': total.flops,
        'flops_by_hand': found.flops_by_hand,
        'bounds': sums,
        'longest': [
            {
                'what': one.what, 'place': one.place, 'runs': one.times, 'bytes': one.bytes,
                'milliseconds': 1e3 * seconds,
            }
            for one, _, seconds in longest
        ],
    }  # fmt: skip


def describe(entry: dict[str, Any]) -> str:
    """The bounds of a program and what holds it up, in Markdown."""
    lines = [
        f'## {entry["config"]}, {entry["settings"]}, {entry["rows"]} rows, {entry["target"]}',
        '',
        f'{entry["bytes"] / 1e9:.1f} GB and {entry["flops"] / 1e12:.2f} TFLOP a step and device '
        f'({entry["flops_by_hand"] / 1e12:.2f} by hand); {entry["date"]}, {entry["commit"]}.',
        '',
        '| ceilings | ms a step, at least | of these memory-bound | steps/s, at most |',
        '| --- | --- | --- | --- |',
    ]
    lines += [
        f'| {name} | {1e3 * one["seconds"]:.1f} | {1e3 * one["of_memory"]:.1f} | '
        f'{one["steps_per_second"]:.1f} |'
        for name, one in entry['bounds'].items()
    ]
    lines += ['', '| longest memory-bound pieces | runs | GB | ms |', '| --- | --- | --- | --- |']
    lines += [
        f'| `{one["what"]}` {one["place"]} | {one["runs"]} | {one["bytes"] / 1e9:.2f} | '
        f'{one["milliseconds"]:.2f} |'
        for one in entry['longest']
    ]
    return '\n'.join(lines)


def markdown(entries: Sequence[dict[str, Any]]) -> str:
    """The page of all records."""
    versions = '; '.join(sorted({entry['versions'] for entry in entries}))
    commands = '\n'.join(f'    {entry["command"]}' for entry in entries)
    found = '\n\n'.join(map(describe, entries))
    return (
        f'{_INTRODUCTION}\n{found}\n\nVersions: {versions}.\n\nThe commands, in this order:\n\n'
        f'{commands}\n'
    )


def add(stem: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to STEM.json, in place of one by the same command, and writes STEM.md."""
    path = stem.with_suffix('.json')
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [old for old in entries if old['command'] != entry['command']] + [entry]
    write_text(path, json.dumps(entries, indent=1) + '\n')
    write_text(stem.with_suffix('.md'), markdown(entries))
