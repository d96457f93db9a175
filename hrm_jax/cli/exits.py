"""Exits of commands: errors in a few lines, exit codes, closed pipes, and logging.

Exit codes: 0 done; 1 an error that a person must correct, explained in a few lines; 2 a wrong
command line; 75 what passes by itself (a lost process, storage that does not answer, a device that
failed), after which the same command resumes; 129 the terminal was closed; 130 interrupted from the
keyboard; 141 the reader of the output has left; 143 ended by SIGTERM or a notice of preemption.
After 129 to 143 everything is saved, and the same command resumes. An error of the program itself
keeps its traceback.
"""

from collections.abc import Callable
import contextlib
import errno
from logging import WARNING, LogRecord
import re
import sys
import traceback

from absl import logging

from hrm_jax.errors import RESTART, UserError
from hrm_jax.run.workdir import silence

EXIT_CODES = {'SIGHUP': 129, 'SIGINT': 130, 'SIGPIPE': 141, 'SIGTERM': 143}
# What the user's files or disks can be blamed for.
_FILE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT,
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY,
    errno.EINVAL, errno.EAGAIN,
)  # fmt: skip
# What passes by itself: file servers and the network.
_PASSING_ERRORS = (
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN,
    errno.ENOTCONN,
)  # fmt: skip
# What orbax warns of when a command reads a part of a checkpoint.
_HARMLESS = re.compile(
    r'found in the checkpoint, but could not be restored|Waiting for previous save'
    r'|Sharding info not provided|Requested `tracked_metric`|No prioritized params'
    r'|Type handler registry|deprecated|Failed to get existing items|zero size'
)


def fail(error: BaseException, code: int) -> None:
    """Prints an error in one line and exits."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f'error: {text}', file=sys.stderr, flush=True)
    # Reads that failed leave coroutines behind, and each would print its own traceback.
    sys.unraisablehook = lambda _: None
    _leave(code)


def _leave(code: int) -> None:
    """Exits; what the streams still hold can no longer fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            silence(stream)
    if 'hrm_jax.run.distributed' in sys.modules:
        sys.modules['hrm_jax.run.distributed'].leave(code)
    raise SystemExit(code) from None


def run(command: Callable[[], int | None]) -> None:
    """Runs a command and exits with its code; errors that a user can fix become one line."""
    sys.unraisablehook = lambda _: None
    try:
        code = command()
        sys.stdout.flush()
    except UserError as error:
        fail(error, error.exit_code)
    except FloatingPointError as error:
        fail(error, 1)
    except MemoryError as error:
        fail(MemoryError(f'this machine has not enough memory: {error}'), 1)
    except KeyboardInterrupt:  # outside of training, or a second Ctrl-C
        fail(InterruptedError('interrupted'), EXIT_CODES['SIGINT'])
    except BrokenPipeError:  # the reader of the output has left
        _leave(EXIT_CODES['SIGPIPE'])
    except OSError as error:
        if error.errno not in _FILE_ERRORS + _PASSING_ERRORS:
            raise
        code = RESTART if error.errno in _PASSING_ERRORS else 1
        fail(OSError(f'{error.filename or "standard output"}: {error.strerror}'), code)
    except Exception as error:
        if type(error).__name__ not in ('JaxRuntimeError', 'XlaRuntimeError'):
            raise
        from hrm_jax.run import device_memory

        if device_memory.is_about_memory(error):
            fail(device_memory.explain(error), 1)
        traceback.print_exc()
        fail(RuntimeError(f'a device or another process failed: {_first_line(error)}'), RESTART)
    raise SystemExit(code or 0)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def quiet_orbax() -> None:
    """Keeps orbax's harmless messages out of the log; its warnings that data were skipped stay."""
    logging.set_verbosity(logging.WARNING)

    def shows(record: LogRecord) -> bool:
        if record.levelno > WARNING:
            return not record.exc_info  # what failed becomes an error here
        return not _HARMLESS.search(record.getMessage())

    logging.get_absl_logger().addFilter(shows)
