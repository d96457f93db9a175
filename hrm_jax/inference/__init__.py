"""Answering puzzles with a saved model."""


def __getattr__(name: str):
    # Where Solver was before it was exported by the package itself; without importing JAX here.
    if name == 'Solver':
        from hrm_jax.inference.solver import Solver

        return Solver
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
