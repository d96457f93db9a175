"""The train step of an experiment, compiled for a target, and what it needs there."""

import dataclasses
import time
from typing import Any

import jax

from experiments.aot import hlo
from experiments.aot.targets import Target
from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import flops
from hrm_jax.run import summary

_SCHEDULE = 10_000  # steps; a constant of the program, of no consequence here
_TOO_LARGE = ('RESOURCE_EXHAUSTED', 'out of memory', 'Ran out of memory')


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs, as the compiler plans them.

    Attributes:
      arguments: state and batch.
      outputs: those that do not take the place of an argument.
      temporaries: activations and other intermediates.
      program: the code itself, where the compiler counts it.
      peak: the most that is alive at once; 0: the compiler does not report it.
    """

    arguments: int
    outputs: int
    temporaries: int
    program: int
    peak: int

    def needed(self, platform: str) -> int:
        """Bytes that a device of this platform must have.

        TPU compilers state temporaries whose sum with the arguments can exceed the memory for
        programs that they accept; what they refuse goes by what is alive at once.
        """
        if platform == 'tpu' and self.peak:
            return self.peak + self.program
        return self.arguments + self.outputs + self.temporaries + self.program


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What is known of a program after compiling it.

    Attributes:
      devices: how many it runs on.
      mesh: sizes of the axes.
      memory: None if it did not compile for lack of memory.
      refusal: the compiler's message in that case.
      flops: of one device, by the compiler, which counts the body of a loop once; None where
        the compiler does not count.
      flops_by_hand: of one device, matrix products only (model/flops.py).
      bytes_accessed: of one device, likewise.
      collectives: Traffic by kind.
      kernels: custom calls of attention kernels in the program.
      seconds: to lower and compile.
      text: of the compiled program; '' where there is none.
    """

    devices: int
    mesh: dict[str, int]
    memory: Memory | None
    refusal: str
    flops: float | None
    flops_by_hand: float
    bytes_accessed: float | None
    collectives: dict[str, hlo.Traffic]
    kernels: int
    seconds: float
    text: str = dataclasses.field(default='', repr=False)


def compile_for(config: ExperimentConfig, target: Target) -> Compiled:
    """Compiles the real train step, as training would, from shapes alone.

    Raises:
      ConfigError: the target does not exist, or the experiment does not divide over it.
    """
    if config.model.forward_dtype == 'float32':
        # As hrm.py does where the devices at hand multiply with fewer bits.
        jax.config.update('jax_default_matmul_precision', 'highest')
    mesh = partitioning.make_mesh(target.devices, config.mesh)
    partitioning.check_fits(config, mesh)
    began = time.monotonic()
    with partitioning.activate(mesh):  # the shapes too are found by tracing, for these devices
        state = train_state.abstract(config, mesh)
        step = train_step.make_train_step(config, _SCHEDULE, mesh)
        lowered = step.lower(state, summary.abstract_batch(config, mesh))
    compiled, refusal = None, ''
    try:
        compiled = lowered.compile(compiler_options=target.compiler_options)
    except Exception as error:  # of a type of XLA's own
        if not any(words in str(error) for words in _TOO_LARGE):
            raise
        refusal = str(error)
    a_row = flops.train_step(config.model, config.act, config.loss)
    by_hand = a_row * config.train.global_batch_size
    text = compiled.as_text() if compiled else ''
    costs = _costs(compiled)
    return Compiled(
        devices=mesh.size,
        mesh=dict(mesh.shape),
        memory=_memory(compiled) if compiled else None,
        refusal=refusal,
        flops=costs.get('flops'),
        flops_by_hand=by_hand / mesh.size,
        bytes_accessed=costs.get('bytes accessed'),
        collectives=hlo.collectives(text) if compiled else {},
        kernels=hlo.kernels(text),
        seconds=time.monotonic() - began,
        text=text,
    )


def _costs(compiled: Any) -> dict[str, float]:
    found = compiled.cost_analysis() if compiled else None
    if isinstance(found, list):
        found = found[0] if found else None
    return found or {}


def _memory(compiled: Any) -> Memory:
    found = compiled.memory_analysis()
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        program=found.generated_code_size_in_bytes,
        peak=getattr(found, 'peak_memory_in_bytes', 0),
    )
