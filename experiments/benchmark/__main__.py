"""Times the train step, the eval step, adaptive inference and the input pipeline.

    python -m experiments.benchmark                        # Sudoku, 27M, on the devices at hand
    python -m experiments.benchmark --quick                # a small model, to see that it works
    python -m experiments.benchmark --config sudoku_extreme_1k:768 maze_hard_1k:96 arc1:96 \
        --peer PATH/TO/HRM --peer-compile --output results/h200

    python -m experiments.benchmark --size tiny small full --threads 1 --act-steps 4 \
        --program 'train step' 'eval step' --peer HRM TinyRecursiveModels krychu-hrm

Random puzzles of the right shapes, no data set needed. --peer times the model code of checkouts
(sapientinc/HRM, SamsungSAILMontreal/TinyRecursiveModels, krychu/hrm), each beside the
configurations that it has, in turns, on the same device with the same shapes and dtypes; what
they import and is not installed (flash_attn, adam_atan2, pydantic) is replaced (stand_ins.py). A
program that it could not run has a row with the reason, and the exit code is 1 if it ran none. On a
CPU both sides have the same cores and number of threads (--threads), and rounds during which other
programs used more than 0.15 cores are measured again and left out. Writes OUTPUT.json and
OUTPUT.md after every case. Works on CPU, GPU and TPU.
"""

import argparse
from collections.abc import Sequence
import datetime
import json
import math
import os
from pathlib import Path
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from hrm_jax import files

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
    add('--config', nargs='+', default=[], metavar='NAME[:ROWS]',
        help='files of configs/; ROWS over --batch-size (sudoku_extreme_1k)')  # fmt: skip
    add('--size', nargs='+', default=[], choices=['tiny', 'small', 'full'],
        help='models that a CPU can run, each with an original; besides --config')  # fmt: skip
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
    add('--threads', type=int, default=0, help='of each side, on a CPU (all cores it may use)')
    add('--minutes', type=float, default=0, help='begin no further case after this; 0: no limit')
    add('--peer', nargs='+', default=[], metavar='DIR', help='checkouts of originals')
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
    add('--case', type=int, help=argparse.SUPPRESS)  # a job of this process, to --report
    add('--report', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.size:
        args.config = args.config or ['sudoku_extreme_1k']
    if args.peer and args.act_steps == 1:
        parser.error('--act-steps=1 would take the Q target out of the original: use 2 or more')
    if args.quick:
        args.rounds, args.seconds = min(args.rounds, 2), min(args.seconds, 0.05)
    return args


def find_cases(args: argparse.Namespace, on_cpu: bool) -> list[Any]:
    """Every combination of what was asked for."""
    from experiments.benchmark import cases

    found = []
    for size in args.size:
        for name, rows, settings in cases.SIZES_OF_MODELS[size]:
            for dtype in args.dtype or ['float32' if on_cpu else '']:
                found.append(cases.load(
                    name, rows, dtype, args.attention[0], args.act_steps, args.quick,
                    (*settings, *args.set),
                ))  # fmt: skip
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
        'threads of each side': os.environ.get('OMP_NUM_THREADS', ''),
        'load average at the start': f'{os.getloadavg()[0]:.1f}'
        if hasattr(os, 'getloadavg')
        else '',
        'Python': platform.python_version(),
        'jax': jax.__version__,
        'commit': commit,
    }


def measure_case(case, args, peers) -> list[dict[str, Any]]:
    """All programs of one case: a result for each side of each."""
    from experiments.benchmark import programs, rounds, their_side

    ours = programs.Ours(case, not args.no_bytes)
    asked = [p for p in PROGRAMS if p in args.program]
    reasons = {peer.original: their_side.obstacle(case, peer.original) for peer in peers}
    wanted = [
        peer for peer in peers
        if not reasons[peer.original]
        and not (peer.compiled and args.peer_compile and case.name not in args.peer_compile)
    ]  # fmt: skip
    failed = {} if wanted or not peers else {'original, eager': ' '.join(reasons.values())}
    for peer in wanted:
        try:
            print(f'{peer.name}: {peer.make(case, args.threads)}', file=sys.stderr)
        except their_side.PeerError as error:
            failed[peer.name] = str(error)
            print(f'{case.name}: {peer.name} could not run: {error}', file=sys.stderr)
    results = []
    for name in asked:
        program = ours.make(name)
        sides, peaks = {'ours': program.seconds}, {}

        def of(peer, name=name, peaks=peaks, steps=program.steps, sides=sides):
            def run(times):
                try:
                    spent, peaks[peer.name] = peer.run(name, steps * times)
                except their_side.PeerError as error:
                    failed[peer.name] = f'{name}: {error}'
                    print(f'{peer.name} could not run: {name}: {error}', file=sys.stderr)
                    raise
                return spent

            return run

        has_peer = name in their_side.PROGRAMS
        while True:
            running = [peer for peer in wanted if has_peer and peer.name not in failed]
            sides = {'ours': program.seconds} | {peer.name: of(peer) for peer in running}
            try:
                pids = [peer.pid for peer in running]
                found = rounds.measure(sides, args.rounds, args.seconds, pids)
                break
            except their_side.PeerError:
                continue  # without the side that failed
        first = len(results)
        for side, seconds in found.seconds.items():
            theirs = found.seconds.get('original, eager')
            results.append(
                case.label()
                | {'program': name, 'side': side}
                | _result(program, side, seconds, theirs)
                | {'other_work': None if math.isnan(found.others) else found.others}
                | {'rounds_left_out': found.dropped}
            )
            if side in peaks:
                results[-1]['gib'] = peaks[side] / 2**30
            if found.under_load:
                results[-1].setdefault('notes', {})['no quiet rounds'] = 'times say little'
        for side, why in failed.items() if has_peer else ():
            results.append(
                case.label() | {'program': name, 'side': side, 'notes': {'could not run': why}}
            )
        print_last(results[first:])
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


def print_last(results: list[dict[str, Any]]) -> None:
    """Prints the speed of some results."""
    for r in results:
        text = f'{r["config"]} x {r["rows"]}, {r["program"]}, {r["side"]}: '
        if 'runs_per_second' not in r:
            print(f'{text}could not run: {r["notes"]["could not run"]}', flush=True)
            continue
        text += f'{r["runs_per_second"]:.4g} runs/s'
        if 'ratio' in r:
            text += f', time / original {r["ratio"]:.3f} ({r["ratio_of_fastest"]:.3f} of fastest)'
        if 'no quiet rounds' in r.get('notes', {}):
            text += f'; other programs used {r["other_work"]:.1f} cores: the times say little'
        print(text, flush=True)


def measure_apart(number: int, given: Sequence[str]) -> dict[str, Any]:
    """The report of one job by a process of its own: a CPU is set up for what it runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'report.json'
        command = [sys.executable, '-m', 'experiments.benchmark', *given]
        subprocess.run([*command, f'--case={number}', f'--report={path}'], check=False)
        try:
            return json.loads(path.read_text())
        except OSError:
            raise SystemExit('error: a case could not be measured (above)') from None


def write(report: dict[str, Any], output: str) -> None:
    """Replaces OUTPUT.json and OUTPUT.md."""
    from experiments.benchmark import table

    files.write_text(f'{output}.json', json.dumps(report, indent=1) + '\n')
    files.write_text(f'{output}.md', table.page(report))


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the flags name; returns the exit code."""
    args = parse(argv)
    began = time.perf_counter()
    if args.peer:
        # Both sides must find memory on the device.
        os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    from experiments.benchmark import rounds

    try:
        args.threads = rounds.pin(args.threads)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    import jax

    from experiments import originals
    from experiments.benchmark import cases, ceilings, table, their_side
    from hrm_jax.errors import UserError

    try:
        asked = [program for program in PROGRAMS if program in args.program]
        expected = find_cases(args, on_cpu=True)
        jobs = [
            (n, alike)
            for n, case in enumerate(expected)
            for alike in cases.set_up_alike(case.config, asked)
        ]
        if args.case is not None:
            jobs = jobs[args.case : args.case + 1]
        if len(jobs) == 1:
            ((number, alike),) = jobs
            cases.set_up(expected[number].config, alike[0])  # before JAX's backend starts
        on_cpu = jax.default_backend() == 'cpu'
        found = find_cases(args, on_cpu)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    apart = on_cpu and len(jobs) > 1
    if args.case is not None:
        ((number, args.program),) = jobs
        found = [found[number]]
    kinds = [False] if args.peer_compile is None else [False, True]
    try:
        for place in args.peer:
            originals.name_of(place)
        peers = (
            []
            if apart
            else [
                their_side.Peer(args.peer_python, place, kind)
                for place in args.peer
                for kind in kinds
            ]
        )
    except (UserError, OSError) as error:
        print(f'error: --peer {error}', file=sys.stderr)
        return 1
    dtypes = sorted({case.config.model.forward_dtype for case in found})
    given = sys.argv[1:] if argv is None else argv
    report = {
        'date': datetime.date.today().isoformat(),
        'command': shlex.join(['python', '-m', 'experiments.benchmark', *given]),
        'machine': describe_machine(),
        'ceilings': {},
        'results': [],
    }
    if not apart:
        ceilings.raise_to_best(report['ceilings'], dtypes, args.quick)
    for number, one in enumerate(jobs if apart else found):
        if args.minutes and time.perf_counter() - began > 60 * args.minutes:
            case = found[one[0]] if apart else one
            print(f'out of time: {case.name} x {case.rows} and what follows', file=sys.stderr)
            break
        if apart:
            part = measure_apart(number, given)
            report['results'] += part['results']
            ceilings.join(report['ceilings'], part['ceilings'])
        else:
            report['results'] += measure_case(one, args, peers)
            jax.clear_caches()
            ceilings.raise_to_best(report['ceilings'], dtypes, args.quick)
        for result in report['results']:
            ceilings.add_fractions(result, report['ceilings'], jax.device_count())
        if args.output and not args.report:
            write(report, args.output)
    for peer in peers:
        peer.close()
    if args.report:
        files.write_text(args.report, json.dumps(report) + '\n')
        return 0
    print(table.rows(report['results']))
    rows = [r for r in report['results'] if r['side'] != 'ours']
    if args.peer and not any('runs_per_second' in r for r in rows):
        reasons = {r['notes']['could not run'] for r in rows} or {'no program of it was asked for'}
        print(f'error: the original was not timed: {"; ".join(sorted(reasons))}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
