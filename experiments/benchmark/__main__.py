"""Times the train step, the eval step, adaptive inference and the input pipeline.

    python -m experiments.benchmark                        # Sudoku, 27M, on the devices at hand
    python -m experiments.benchmark --quick                # a small model, to see that it works
    python -m experiments.benchmark --config sudoku_extreme_1k:768 maze_hard_1k:96 arc1:96 \
        --peer PATH/TO/HRM --peer-compile --output results/h200

Random puzzles of the right shapes, no data set needed. --peer times the model code of a checkout
of sapientinc/HRM beside ours, in turns, on the same device with the same shapes and dtypes; what
it imports and is not installed (flash_attn, adam_atan2, pydantic) is replaced (stand_ins.py).
Writes OUTPUT.json and OUTPUT.md after every case. Works on CPU, GPU and TPU.
"""

import argparse
from collections.abc import Sequence
import datetime
import json
import os
from pathlib import Path
import platform
import shlex
import statistics
import subprocess
import sys
import time
from typing import Any

PROGRAMS = ('train step', 'forward and backward', 'eval step', 'adaptive inference',
            'input pipeline')  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.benchmark',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--config', nargs='+', default=['sudoku_extreme_1k'], metavar='NAME[:ROWS]',
        help='files of configs/; ROWS over --batch-size')  # fmt: skip
    add('--batch-size', nargs='+', type=int, default=[], metavar='ROWS',
        help="default: the configuration's; on a CPU 8")  # fmt: skip
    add('--dtype', nargs='+', default=[], choices=['float32', 'bfloat16', 'float16'],
        help="default: the configuration's; on a CPU float32")  # fmt: skip
    add('--attention', nargs='+', default=['auto'], help='implementations (model.attention)')
    add('--program', nargs='+', default=list(PROGRAMS), choices=PROGRAMS)
    add('--act-steps', type=int, default=0, help="of an evaluation; 0: the configuration's")
    add('--set', nargs='+', default=[], metavar='KEY=VALUE', help='settings, as model.remat=true')
    add('--rounds', type=int, default=7, help='times that the sides take turns')
    add('--seconds', type=float, default=1.0, help='of a round, at least one run')
    add('--minutes', type=float, default=0, help='begin no further case after this; 0: no limit')
    add('--peer', metavar='DIR', help='checkout of sapientinc/HRM')
    add('--peer-python', default=sys.executable, help='interpreter with torch (default: this one)')
    add(
        '--peer-compile',
        nargs='*',
        metavar='NAME',
        help='time it with torch.compile as well; only for these configurations, or for all',
    )
    add('--no-bytes', action='store_true', help='do not compile once more to count bytes')
    add('--quick', action='store_true', help='small model, small batch, two rounds')
    add('--output', metavar='PATH', help='writes PATH.json and PATH.md')
    args = parser.parse_args(argv)
    if args.peer and args.act_steps == 1:
        parser.error('--act-steps=1 would take the Q target out of the original: use 2 or more')
    if args.quick:
        args.rounds, args.seconds = min(args.rounds, 2), min(args.seconds, 0.05)
    return args


def find_cases(args: argparse.Namespace, on_cpu: bool) -> list[Any]:
    """Every combination of what was asked for."""
    from experiments.benchmark import cases

    found = []
    for text in args.config:
        name, _, rows = text.partition(':')
        batch_sizes = [int(rows)] if rows else args.batch_size or [8 if on_cpu or args.quick else 0]
        for size in batch_sizes:
            for dtype in args.dtype or ['float32' if on_cpu else '']:
                for attention in args.attention:
                    found.append(cases.load(
                        name, size, dtype, attention, args.act_steps, args.quick, tuple(args.set)
                    ))  # fmt: skip
    return found


def measure(program: str, sides: dict[str, Any], rounds: int, seconds: float) -> dict[str, list]:
    """Seconds per run of each side, in rounds that alternate between them.

    Args:
      program: its name.
      sides: name -> function of a number of runs that gives the seconds they took.
      rounds: how many.
      seconds: a round has as many runs as fit in, at least one.
    """
    times, found = {}, {name: [] for name in sides}
    for name, run in sides.items():
        run(1)  # compiles, where it is not yet
        times[name] = max(1, int(seconds / max(run(1), 1e-6)))
    for _ in range(rounds):
        for name, run in sides.items():
            found[name].append(run(times[name]) / times[name])
    return found


def describe_machine() -> dict[str, str]:
    """Devices, processor, versions and commit, for the report."""
    import jax

    def first_line(path: str, key: str) -> str:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            return ''
        return next((x.partition(':')[2].strip() for x in lines if x.startswith(key)), '')

    git = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--exclude', '*']
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ''
    return {
        'devices:': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'processor:': first_line('/proc/cpuinfo', 'model name') or platform.processor(),
        'cores:': str(os.cpu_count()),
        'Python': platform.python_version(),
        'jax': jax.__version__,
        'commit': commit,
    }


def measure_case(case, args, peers) -> list[dict[str, Any]]:
    """All programs of one case: a result for each side of each."""
    from experiments.benchmark import programs, their_side

    ours = programs.Ours(case, not args.no_bytes)
    asked = [p for p in PROGRAMS if p in args.program]
    reason = their_side.obstacle(case) if peers else ''
    if reason:
        print(f'{case.name}: not beside the original: {reason}', file=sys.stderr)
    ready = []
    for peer in [] if reason else peers:
        if peer.compiled and args.peer_compile and case.name not in args.peer_compile:
            continue
        try:
            about = peer.make(case)
            ready.append(peer)
            print(f'{peer.name}: {about}', file=sys.stderr)
        except their_side.PeerError as error:
            print(f'{peer.name}: {error}', file=sys.stderr)
    results = []
    for name in asked:
        program = ours.make(name)
        sides, peaks = {'ours': program.seconds}, {}

        def of(peer, name=name, peaks=peaks, steps=program.steps):
            def run(times):
                spent, peaks[peer.name] = peer.run(name, steps * times)
                return spent

            return run

        if name in their_side.PROGRAMS:
            sides |= {peer.name: of(peer) for peer in ready}
        try:
            found = measure(name, sides, args.rounds, args.seconds)
        except their_side.PeerError as error:
            print(f'{name}: {error}', file=sys.stderr)
            ready, found = [], measure(name, {'ours': program.seconds}, args.rounds, args.seconds)
        for side, seconds in found.items():
            results.append(
                case.label()
                | {'program': name, 'side': side}
                | _result(program, side, seconds, found.get('original, eager'))
            )
            if side in peaks:
                results[-1]['gib'] = peaks[side] / 2**30
        print_last(results, len(found))
    return results


def _result(program, side, seconds, theirs) -> dict[str, Any]:
    median = statistics.median(seconds)
    result = {
        'seconds': seconds,
        'runs_per_second': 1 / median,
        'examples_per_second': program.examples / median,
    }
    if program.flops:
        result['tflops'] = program.flops / median / 1e12
    if side == 'ours':
        if program.bytes:
            result['gigabytes_per_second'] = program.bytes / median / 1e9
        result['gib'] = program.memory / 2**30 or None
        result['notes'] = program.notes
        if theirs:
            result['ratio'] = median / statistics.median(theirs)
            result['ratio_of_fastest'] = min(seconds) / min(theirs)
    return result


def print_last(results: list[dict[str, Any]], count: int) -> None:
    """Prints the speed of the last ``count`` results."""
    for r in results[-count:]:
        text = f'{r["config"]} x {r["rows"]}, {r["program"]}, {r["side"]}: '
        text += f'{r["runs_per_second"]:.4g} runs/s'
        if 'ratio' in r:
            text += f', time / original {r["ratio"]:.3f} ({r["ratio_of_fastest"]:.3f} of fastest)'
        print(text, flush=True)


def write(report: dict[str, Any], output: str) -> None:
    """Replaces OUTPUT.json and OUTPUT.md."""
    from experiments.benchmark import table
    from hrm_jax import files

    files.write_text(f'{output}.json', json.dumps(report, indent=1) + '\n')
    files.write_text(f'{output}.md', table.page(report))


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the flags name; returns the exit code."""
    args = parse(argv)
    began = time.perf_counter()
    if args.peer:
        # Both sides must find memory on the device.
        os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    import jax

    from experiments.benchmark import ceilings, table, their_side
    from hrm_jax.errors import UserError

    try:
        found = find_cases(args, jax.default_backend() == 'cpu')
    except (UserError, ModuleNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    peers = []
    if args.peer:
        if not (Path(args.peer) / 'models' / 'hrm').is_dir():
            print(f'error: --peer must be a checkout of sapientinc/HRM, with a folder models/hrm; '
                  f'got {args.peer}.', file=sys.stderr)  # fmt: skip
            return 1
        kinds = [False] if args.peer_compile is None else [False, True]
        peers = [their_side.Peer(args.peer_python, args.peer, kind) for kind in kinds]
    dtypes = sorted({case.config.model.forward_dtype for case in found})
    given = sys.argv[1:] if argv is None else argv
    report = {
        'date': datetime.date.today().isoformat(),
        'command': shlex.join(['python', '-m', 'experiments.benchmark', *given]),
        'machine': describe_machine(),
        'ceilings': {},
        'results': [],
    }
    ceilings.raise_to_best(report['ceilings'], dtypes, args.quick)
    for case in found:
        if args.minutes and time.perf_counter() - began > 60 * args.minutes:
            print(f'out of time: {case.name} x {case.rows} and what follows', file=sys.stderr)
            break
        report['results'] += measure_case(case, args, peers)
        jax.clear_caches()
        ceilings.raise_to_best(report['ceilings'], dtypes, args.quick)
        for result in report['results']:
            ceilings.add_fractions(result, report['ceilings'], jax.device_count())
        if args.output:
            write(report, args.output)
    for peer in peers:
        peer.close()
    print(table.rows(report['results']))
    return 0


if __name__ == '__main__':
    sys.exit(main())
