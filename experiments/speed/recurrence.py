"""SRU's recurrence against the original's Python loop over the positions, side by side.

    python -m experiments.speed.recurrence --original PATH/TO/HRM-rnn-base --torch-python PYTHON

Both get the same numbers, run in turns, forward and with gradients, in float32 on the CPU, and
must agree. --torch-python is an interpreter that has torch (default: this one). Prints the ratio
of the fastest times, ours over theirs: below 1 is faster.
"""

import argparse
from collections.abc import Callable, Sequence
import pickle
import subprocess
import sys
import time
import warnings

import numpy as np


def inputs(rows: int, length: int, dim: int) -> dict[str, np.ndarray]:
    """Numbers for both, positions first as the original wants them."""
    rng = np.random.default_rng(0)
    shapes = {'u': (length, rows, dim, 3), 'x': (length, rows, dim), 'c': (rows, dim),
              'v': (2, dim), 'b': (2, dim)}  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def their_functions(values: dict[str, np.ndarray]) -> dict[str, Callable[[], np.ndarray]]:
    """The original's recurrence; models.local_sru must be importable."""
    from models import local_sru
    import torch

    warnings.filterwarnings('ignore')
    u, x, c, v, b = (torch.from_numpy(values[name]) for name in 'uxcvb')
    length, rows, dim = x.shape

    def forward(u=u):
        flat = u.reshape(length, rows, 3 * dim)
        return local_sru.elementwise_recurrence_naive(
            flat, x, v.reshape(-1), b.reshape(-1), c, 0, dim, False, True
        )[0]

    def only_forward():
        with torch.no_grad():
            return forward().numpy()

    def gradients():
        leaf = u.clone().requires_grad_(True)
        forward(leaf).sum().backward()
        return leaf.grad.numpy()

    return {'forward': only_forward, 'with gradients': gradients}


def our_functions(values: dict[str, np.ndarray]) -> dict[str, Callable[[], np.ndarray]]:
    """Our recurrence, compiled."""
    import jax
    import jax.numpy as jnp

    from hrm_jax.model import sru

    u_BT3D = jnp.asarray(np.transpose(values['u'], (1, 0, 3, 2)))
    x_BTD = jnp.asarray(np.swapaxes(values['x'], 0, 1))
    rest = tuple(jnp.asarray(values[name]) for name in 'cvb')
    forward = jax.jit(lambda u: sru.recur(u, x_BTD, *rest)[0])
    gradient = jax.jit(jax.grad(lambda u: sru.recur(u, x_BTD, *rest)[0].sum()))
    return {
        'forward': lambda: np.swapaxes(np.asarray(forward(u_BT3D)), 0, 1),
        'with gradients': lambda: np.transpose(np.asarray(gradient(u_BT3D)), (1, 0, 3, 2)),
    }


def timed(function: Callable[[], np.ndarray]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def worker() -> None:
    """Answers names of functions with (result, seconds), through pickles on the pipes."""
    functions = their_functions(pickle.load(sys.stdin.buffer))
    while True:
        try:
            name = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        result = functions[name]()
        pickle.dump((result, timed(functions[name])), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Times both sides; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.speed.recurrence',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--original', required=True, help='checkout of NewJerseyStyle/HRM-rnn-base')
    parser.add_argument('--torch-python', default=sys.executable, help='interpreter with torch')
    parser.add_argument('--rows', type=int, default=8)
    parser.add_argument('--length', type=int, default=82, help='positions (Sudoku: 82)')
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--rounds', type=int, default=20)
    args = parser.parse_args(argv)
    values = inputs(args.rows, args.length, args.dim)
    ours = our_functions(values)
    theirs = subprocess.Popen(
        [args.torch_python, __file__, '--worker'],
        cwd=args.original,
        env={'PYTHONPATH': args.original},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def send(what) -> None:
        pickle.dump(what, theirs.stdin)
        theirs.stdin.flush()

    send(values)
    print(f'{args.rows} rows, {args.length} positions, {args.dim} channels, fastest of '
          f'{args.rounds} rounds')  # fmt: skip
    for name, function in ours.items():
        result, best = function(), [float('inf')] * 2
        for _ in range(args.rounds):
            send(name)
            wanted, seconds = pickle.load(theirs.stdout)
            best = [min(best[0], timed(function)), min(best[1], seconds)]
        worst = np.abs(result - wanted).max()
        print(f'{name:<15} ours {1e3 * best[0]:7.2f} ms, theirs {1e3 * best[1]:7.2f} ms, ratio '
              f'{best[0] / best[1]:.3f}, largest difference {worst:.1e}')  # fmt: skip
        if worst > 1e-3:
            print(f'error: the two must agree within 1e-3; {name} differs by {worst:.1e}.',
                  file=sys.stderr)  # fmt: skip
            return 1
    theirs.stdin.close()
    theirs.wait()
    return 0


if __name__ == '__main__':
    if '--worker' in sys.argv:
        worker()
    else:
        sys.exit(main())
