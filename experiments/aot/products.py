"""FLOPs of the matrix products in a compiled program's instructions."""

import math
import re

import numpy as np

from experiments.aot import hlo
from experiments.aot.instructions import Instruction, first

_DIMS = re.compile(r'lhs_contracting_dim(?:s|ensions)"?[=:]?\s*[{\[]([\d",\s]*)[}\]]')
_CUDNN = 'custom_call_target="__cudnn$fmhaSoftmax'
_WINDOW = re.compile(r'window={([^}]*)}')
_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')


def flops(one: Instruction, own: dict[str, Instruction]) -> float:
    """FLOPs of a dot, a convolution or a library's product; 0 for anything else."""
    if len(one.operands) < 2 or any(name not in own for name in one.operands[:2]):
        return 0.0
    left, right = (first(own[name].shape) for name in one.operands[:2])
    made = math.prod(first(one.shape))
    if one.opcode == 'convolution' and (labels := _LABELS.search(one.line)):
        return 2.0 * right[labels[2].index('i')] * _met(one, left, labels[1], labels[3])
    if _CUDNN in one.line:  # two products; their gradients, and the weights once more
        batch, count, length, width = first(one.shape)
        number = 5 if 'Backward' in one.line else 2
        return 2.0 * number * batch * count * length * length * width
    is_library = one.opcode == 'custom-call' and 'cublas' in one.line
    if (one.opcode == 'dot' or is_library) and (dims := _DIMS.search(one.line)):
        contracted = [int(n) for n in re.findall(r'\d+', dims[1])]
        return 2.0 * made * math.prod(left[n] for n in contracted)
    return 0.0


def _met(one: Instruction, left: list[int], inputs: str, outputs: str) -> int:
    """Pairs of an output and a place of the window over it that holds an input's value.

    TPUs write batches of products as convolutions: of the places of their windows most are padding,
    or lie between the values of a dilated input, and are not computed.
    """
    made = first(one.shape)
    found = math.prod(n for n, label in zip(made, outputs, strict=True) if not label.isdigit())
    window = _WINDOW.search(one.line)
    given = dict(re.findall(r'(\w+)=([\w.\-]+)', window[1] if window else ''))
    sizes = [int(n) for n in given['size'].split('x')] if window else []

    def numbers(name: str, default: str) -> list[str]:
        return given[name].split('x') if name in given else [default] * len(sizes)

    for number, (size, stride, pad, hole, step) in enumerate(zip(
        sizes, numbers('stride', '1'), numbers('pad', '0_0'), numbers('lhs_dilate', '1'),
        numbers('rhs_dilate', '1'), strict=True,
    )):  # fmt: skip
        length, turns = (
            shape[text.index(str(number))] for shape, text in ((left, inputs), (made, outputs))
        )
        places = (
            np.arange(turns)[:, None] * int(stride) + np.arange(size) * int(step)
            - int(pad.split('_')[0])
        )  # fmt: skip
        is_inside = (places >= 0) & (places < length * int(hole)) & (places % int(hole) == 0)
        found *= int(is_inside.sum())
    return found


def kernel_flops(one: Instruction, own: dict[str, Instruction]) -> float:
    """FLOPs of our kernels, by what they return.

    Attention's forward pass and its log sums: two products of [T, T, K]; gradients of keys and
    values: four; of queries: three (both recompute the weights). The gated unit: two of [R, D, F].
    """
    shapes = [array.dims for array in hlo.arrays(one.shape)]
    if [len(shape) for shape in shapes] == [2]:
        return 4.0 * math.prod(shapes[0]) * first(own[one.operands[0]].shape)[1]
    heads = [shape for shape in shapes if len(shape) == 4]
    if not heads or not one.operands or one.operands[0] not in own:
        return 0.0
    batch, length, count, width = heads[0]
    products = 4 if len(heads) == 2 else 2 if len(shapes) > 1 else 3
    return 2.0 * products * batch * count * length * length * width


def is_wide(one: Instruction, own: dict[str, Instruction]) -> bool:
    return all(own[n].shape.startswith('f32') for n in one.operands[:2] if n in own)
