"""Runs ``python -m hrm_jax.main`` in processes of its own, forked from one that has imported JAX.

So a test that needs a real process, to kill it or to see its exit code, pays for the imports
only once.
"""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import sys
import tempfile


@functools.cache
def _context():
    context = multiprocessing.get_context('forkserver')
    # Importing does not start JAX's backend, which would not survive the fork.
    context.set_forkserver_preload(['hrm_jax.train', 'ml_collections.config_flags'])
    return context


@functools.cache
def compile_cache() -> str:
    """Folder for compiled programs, shared by all tests of a session."""
    return tempfile.mkdtemp(prefix='hrm_jax_compiled_')


@contextlib.contextmanager
def quick_compiles(folder: str | None = None):
    """Compiles without optimizations and keeps the programs: tests compile more than they run."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    names = {
        'jax_compilation_cache_dir': folder or compile_cache(),
        'jax_persistent_cache_min_compile_time_secs': 0.0,
        'jax_persistent_cache_min_entry_size_bytes': -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    names['jax_disable_most_optimizations'], before['jax_disable_most_optimizations'] = True, False
    try:
        for name, value in names.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _main(arguments, output, prelude):
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
    from hrm_jax import main

    sys.argv = ['hrm_jax.main', *arguments[1:]]
    os.environ['JAX_COMPILATION_CACHE_DIR'] = arguments[0]  # else main sets the user's own
    with quick_compiles(arguments[0]):
        if prelude is not None:
            prelude()
        try:
            main.main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class Command:
    """A started command.

    Attributes:
      process: its process.
    """

    def __init__(self, output: pathlib.Path, *arguments: object, prelude=None):
        self._output = output
        output.unlink(missing_ok=True)
        words = [compile_cache(), *map(str, arguments)]
        self.process = _context().Process(target=_main, args=(words, str(output), prelude))
        self.process.start()

    def wait(self) -> tuple[int, str]:
        """Returns the exit code (negative: the signal that ended it) and what it printed."""
        self.process.join()
        return self.process.exitcode, self._output.read_text()


def exit_code(main, *arguments: object) -> int:
    """Calls ``main`` of a command in this process; returns the code that it exits with."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    raise AssertionError(f'{main.__module__}.main returned and did not exit')


def run(output: pathlib.Path, *arguments: object, prelude=None) -> tuple[int, str]:
    """Runs a command to its end."""
    return Command(output, *arguments, prelude=prelude).wait()
