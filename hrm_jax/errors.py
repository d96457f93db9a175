"""The errors that a user can correct, one kind for each thing that can be wrong.

A command prints one of them as ``error: <message>`` and exits with its ``exit_code``. Any other
exception is a fault of the program and keeps its traceback. A message states what must hold, what
came, and how to fix it.

Exit codes: 1 where a person must change something, 2 for a wrong command line, ``RESTART`` where
the same command can succeed later (a process was lost, storage or a device failed).
"""

RESTART = 75  # EX_TEMPFAIL of sysexits.h; every launch recipe restarts a run that ends with it


class UserError(ValueError):
    """Input, settings or files that cannot be used.

    Attributes:
      exit_code: of a command that ends with this error.
    """

    exit_code = 1

    @classmethod
    def require(cls, condition: bool, message: str) -> None:
        """Raises an error of this kind unless the condition holds."""
        if not condition:
            raise cls(message)


class UsageError(UserError):
    """The command line lacks something, or states something unknown."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


class ClusterError(ConfigError):
    """The processes of a run cannot work together."""


class LostProcess(ClusterError):
    """A process of the run is missing or did not answer in time; a restart can bring it back."""

    exit_code = RESTART


class DatasetError(UserError):
    """A data set is missing, incomplete or contradicts itself."""


class BuildError(UserError):
    """A source, an option or the output folder of a builder is unusable."""


class CheckpointError(UserError):
    """A checkpoint, of ours or of others, is missing, unsafe, of another model, or not writable."""


class DamagedCheckpoint(CheckpointError):
    """The files of a checkpoint cannot be read, or not as what they should be.

    Attributes:
      what: the message without the advice.
    """

    def __init__(self, what: str, advice: str = ''):
        super().__init__(f'{what}. {advice}' if advice else what)
        self.what = what


class StorageError(CheckpointError):
    """The storage of the checkpoints does not answer; nothing that a person must change."""

    exit_code = RESTART


class DeviceMemoryError(UserError):
    """A program needs more memory than a device has."""


class WorkdirError(UserError):
    """The working directory cannot be written, or another process owns it."""


class PuzzleError(UserError):
    """A puzzle cannot be read; the message names the cell."""


class PredictionError(UserError):
    """Predictions are missing, incomplete, or do not belong to the puzzles."""
