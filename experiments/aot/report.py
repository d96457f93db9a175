"""What a compiled program needs, as text, JSON and Markdown."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from experiments.aot.build import Compiled
from experiments.aot.targets import Target
from hrm_jax.config import ExperimentConfig
from hrm_jax.files import write_text
from hrm_jax.run.summary import human

_INTRODUCTION = """\
# Compiled ahead of time

What XLA's compilers plan for the whole train step (forward, backward, both optimizers), on one
device, made without the hardware by `make aot`. Nothing here was run or timed. Needed is what the
device must have: on GPUs the sum of state and batch, new outputs and temporaries; on TPUs the most
that is alive at once, by their compiler, and the program itself. FLOPs are those of the matrix
products, counted by hand (`hrm_jax/model/flops.py`); the compiler's own count takes the body of a
loop once and is in the JSON beside this file. Collectives are per step: how many, and the bytes of
their results on a device.
"""
_COLUMNS = (
    'target', 'configuration', 'mesh data x fsdp x model', 'rows per device', 'state and batch',
    'temporaries', 'needed', 'of memory', 'TFLOP', 'collectives', 'compiled',
)  # fmt: skip


def record(
    config: ExperimentConfig, target: Target, found: Compiled, about: dict[str, Any]
) -> dict[str, Any]:
    """Everything that is known, for JSON.

    Args:
      config: the experiment.
      target: the machine.
      found: the compiled program.
      about: date, versions, commit, command.
    """
    memory = found.memory
    return {
        **about,
        'target': target.name,
        'devices': found.devices,
        'mesh': found.mesh,
        'config': config.name,
        'global_batch_size': config.train.global_batch_size,
        'micro_batches': config.train.micro_batches,
        'model': {
            name: getattr(config.model, name)
            for name in (
                'vocab_size',
                'seq_len',
                'num_puzzle_identifiers',
                'forward_dtype',
                'attention',
                'remat',
            )
        },
        'fits': fits(target, found),
        'memory_of_a_device': target.memory,
        'usable_memory': target.usable,
        'memory': None
        if memory is None
        else {
            'arguments': memory.arguments,
            'outputs': memory.outputs,
            'temporaries': memory.temporaries,
            'program': memory.program,
            'peak': memory.peak,
            'needed': memory.needed(target.platform),
        },
        'refusal': found.refusal[:4000],
        'flops_by_compiler': found.flops,
        'flops_by_hand': found.flops_by_hand,
        'bytes_accessed': found.bytes_accessed,
        'collectives': {
            kind: {'count': traffic.count, 'bytes': traffic.bytes}
            for kind, traffic in found.collectives.items()
        },
        'kernels': found.kernels,
        'compile_seconds': round(found.seconds, 1),
    }


def fits(target: Target, found: Compiled) -> bool:
    """Whether the target has the memory."""
    return found.memory is not None and found.memory.needed(target.platform) <= target.usable


def describe(config: ExperimentConfig, target: Target, found: Compiled) -> str:
    """What a person wants to know before paying for the machine."""
    mesh = ', '.join(f'{axis} {size}' for axis, size in found.mesh.items())
    batch = config.train.global_batch_size
    lines = [
        f'{config.name} on {target.name}: {found.devices} devices ({mesh}), batch {batch:,}, '
        f'{config.model.forward_dtype}, attention {config.model.attention}'
        f'{" (kernels)" if found.kernels else ""}, compiled in {found.seconds:.0f} s',
        f'FLOPs per device and step: {found.flops_by_hand:.4g} by hand (matrix products)'
        + (f', {found.flops:.4g} by the compiler (loop bodies once)' if found.flops else ''),
    ]
    if found.bytes_accessed:
        lines.append(f'bytes accessed per device: {human(found.bytes_accessed)} (loop bodies once)')
    if found.memory is not None:
        memory = found.memory
        needed = human(memory.needed(target.platform))
        lines.append(
            f'memory per device: {needed} needed of {human(target.usable)} usable: '
            f'{human(memory.arguments)} state and batch, {human(memory.outputs)} new outputs, '
            f'{human(memory.temporaries)} temporary, {human(memory.program)} program'
        )
        traffic = [
            f'{moved.count} {kind} ({human(moved.bytes)})'
            for kind, moved in found.collectives.items()
        ]
        lines.append(f'collectives per step: {", ".join(traffic) or "none"}')
    if not fits(target, found):
        lines.append(
            'IT DOES NOT FIT. Less memory: --config.model.remat=True, '
            '--config.train.micro_batches=2, a smaller --config.train.global_batch_size, more '
            'devices, or --config.mesh.fsdp for the weights and optimizer state.'
        )
        if found.refusal:
            lines.append(f'Message of the compiler:\n{found.refusal[:3000]}')
    return '\n'.join(lines)


def _row(entry: dict[str, Any]) -> str:
    model, memory = entry['model'], entry['memory']
    options = [f'batch {entry["global_batch_size"]}', model['forward_dtype']]
    options += [f'attention={model["attention"]}'] + ['remat'] * model['remat']
    if entry['micro_batches'] > 1:
        options.append(f'{entry["micro_batches"]} micro-batches')
    parts = ['does not compile'] * 3 + ['-']
    if memory:
        share = memory['needed'] / entry['memory_of_a_device']
        parts = [human(memory[name]) for name in ('arguments', 'temporaries', 'needed')]
        parts.append(f'{share:.1%}')
    if not entry['fits']:
        parts[-1] += ' **too much**'
    collectives = ', '.join(
        f'{moved["count"]} {kind} ({human(moved["bytes"])})'
        for kind, moved in entry['collectives'].items()
    )
    cells = [
        entry['target'],
        f'{entry["config"]}, {", ".join(options)}',
        ' x '.join(str(size) for size in entry['mesh'].values()),
        f'{entry["global_batch_size"] / (entry["mesh"]["data"] * entry["mesh"]["fsdp"]):g}',
        *parts,
        f'{entry["flops_by_hand"] / 1e12:.2f}',
        collectives or 'none',
        f'{entry["date"]}, {entry["commit"]}',
    ]
    return f'| {" | ".join(cells)} |'


def markdown(entries: Sequence[dict[str, Any]]) -> str:
    """The page of all records: a table, the versions and the commands."""
    versions = sorted({entry['versions'] for entry in entries})
    commands = '\n'.join(f'    {entry["command"]}' for entry in entries)
    return (
        f'{_INTRODUCTION}\n| {" | ".join(_COLUMNS)} |\n|{" --- |" * len(_COLUMNS)}\n'
        + '\n'.join(_row(entry) for entry in entries)
        + f'\n\nVersions: {"; ".join(versions)}.\n\nThe commands, in this order:\n\n{commands}\n'
    )


def add(stem: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to STEM.json, in place of one by the same command, and writes STEM.md."""
    path = stem.with_suffix('.json')
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = json.loads(path.read_text()) if path.exists() else []
    commands = [old['command'] for old in entries]
    if entry['command'] in commands:
        entries[commands.index(entry['command'])] = entry
    else:
        entries.append(entry)
    write_text(path, json.dumps(entries, indent=1) + '\n')
    write_text(stem.with_suffix('.md'), markdown(entries))
