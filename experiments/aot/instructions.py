"""The instructions of a compiled program's text."""

from collections.abc import Sequence
import dataclasses
import re

from experiments.aot import hlo

_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$')
_OPCODE = re.compile(r' ([a-z][\w\-]*)\(')
_NAME = re.compile(r'%([\w.\-]+)')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its name, the text of its shape, opcode, the operands' names, and the line."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    line: str


def _split(rest: str) -> tuple[str, str, str] | None:
    """Shape, opcode and what follows it, of an instruction's right side."""
    depth = 0
    for place, sign in enumerate(rest):
        depth += sign in '([{'
        depth -= sign in ')]}'
        if sign == ' ' and depth == 0:
            found = _OPCODE.match(rest[place:])
            if found:
                return rest[:place], found[1], rest[place + found.end() :]
    return None


def read(lines: Sequence[str]) -> dict[str, Instruction]:
    """Instructions of a computation by name, in their order."""
    found = {}
    for line in lines:
        match = _INSTRUCTION.match(line)
        parts = _split(match['rest']) if match else None
        if match and parts:
            depth, end = 1, 0
            while depth and end < len(parts[2]):
                depth += (parts[2][end] == '(') - (parts[2][end] == ')')
                end += 1
            operands = tuple(_NAME.findall(parts[2][:end]))
            found[match['name']] = Instruction(match['name'], *parts[:2], operands, line)
    return found


def bytes_of(shape: str) -> int:
    """Bytes in the device's memory of an array or a tuple; what a TPU keeps beside it is free."""
    return sum(array.bytes for array in hlo.arrays(shape) if array.in_memory)


def first(shape: str) -> list[int]:
    """Sizes of the first array of a shape."""
    return next((array.dims for array in hlo.arrays(shape)), [])
