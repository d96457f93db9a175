"""The Lisp interpreter against HRM-Lisp's mini_lisp: API, file mode and REPL."""

import contextlib
import io
import json
import os
from pathlib import Path
import re
import sys
import tempfile
from typing import Any

from experiments.parity import registry
from hrm_jax.lisp import __main__ as lisp_main
from hrm_jax.lisp import errors, values
from hrm_jax.lisp import interpreter as interpreter_lib

# Class of fault of the host errors that the original lets through.
_KINDS = {
    'SyntaxError': 'parse',
    'IndexError': 'shape',
    'NameError': 'unbound',
    'ZeroDivisionError': 'arithmetic',
    'RecursionError': 'recursion',
    'ModuleNotFoundError': 'host',
    'FileNotFoundError': 'io',
    'LispStepLimitError': 'limit',
    'LispTimeoutError': 'limit',
}
# Texts by which a host names its own functions, limits and objects; they differ between hosts,
# and a lambda prints as a dump of its whole environment there.
_HOST_TEXT = re.compile(
    r'standard_env\.<locals>.*|maximum recursion depth exceeded.*|\S+ takes .* args, got \d+'
    r'|Procedure\(params=.*|#<procedure .*>'
)
_ADDRESS = re.compile(r'0x[0-9a-f]+|0xADDR')

# What was typed in the sessions (the fixture holds the answers and the files).
_SESSIONS = {
    'load_in_repl': '(load "lib.lisp")\nlibval\n',
    'multi_line': '(+ 1\n2\n3)\n(define (f x)\n(* x 2))\n(f 4)\n',
    'too_many': '(+ 1 2))\n7\n',
    'eof_mid': '(+ 1 2\n',
    'err_then_ok': '(car 5) (+ 5 5)\n(+ 1 1)\n',
    'lisp_error_continues': "(eval-with-limits '(undefined 1) 9 999 #f) (+ 2 2)\n(+ 1 1)\n",
    'string_with_paren': '(display ")")\n"(("\n',
    'comment_with_paren': '(+ 1 1) ; )\n(+ 1 1)\n',
    'comment_open': '(+ 1 1) ; (\n(+ 2 2)\n)\n',
    'multiline_string': '"abc\ndef"\n',
    'blank_lines': '\n\n1\n',
}
_FILES = {'load_file': 'main.lisp', 'err_file': 'err.lisp', 'missing_file': 'nope.lisp'}


def _comparable(text: str) -> str:
    return _ADDRESS.sub('0xADDR', _HOST_TEXT.sub('<host text>', text))


def _command(arguments: list[str], typed: str = '') -> tuple[str, int]:
    """Runs the command in this process; returns its standard output and exit status."""
    out, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(out):
            status = lisp_main.main(['--original-quirks', '--allow-use', *arguments])
    finally:
        sys.stdin = stdin
    return out.getvalue(), status


def _kind(error: dict[str, Any]) -> str:
    message = error['message']
    if error['type'] in _KINDS:
        return _KINDS[error['type']]
    if message.startswith('unbound symbol'):
        return 'unbound'
    if re.search(r'unpack|positional|expected \d+ args', message):
        return 'arity'
    if 'math domain' in message:
        return 'arithmetic'
    return 'type'


def _api(program: str) -> dict[str, Any]:
    """Evaluates a program as the fixture's maker did: a value or None for each expression."""
    out: list[str] = []
    lisp = interpreter_lib.Interpreter(out.append, original_quirks=True, allow_use=True)
    result: dict[str, Any] = {'values': [], 'error': None}
    try:
        for value in lisp.evaluate(lisp.read(program)):
            result['values'].append(None if value is None else _shown(lisp, value))
    except errors.LispError as error:
        result['error'] = {
            # The host reports both a form and a list without parts by the same error.
            'kind': 'shape' if 'index out of range' in str(error) else error.kind,
            'message': _comparable(str(error)),
            'stack': error.format_stack(original_quirks=True),
        }
    return result | {'stdout': _comparable(''.join(out))}


def _shown(lisp: interpreter_lib.Interpreter, value: Any) -> tuple[str, str]:
    name = values.type_name(value)
    names = {'boolean': 'bool', 'integer': 'int', 'string': 'str', 'symbol': 'Symbol'}
    text = '<procedure>' if isinstance(value, values.Procedure) else lisp.text(value)
    return text, names.get(name, name)


def _wanted(api: dict[str, Any]) -> dict[str, Any]:
    error = api['error'] and {
        'kind': _kind(api['error']),
        'message': _comparable(api['error']['message']),
        'stack': api['error'].get('stack', ''),
    }
    shown = [value and (value['display'], value['type']) for value in api['values']]
    return {'values': shown, 'error': error, 'stdout': _comparable(api['stdout'])}


@registry.check('mini_lisp', files=('cases.json',))
def mini_lisp(fixture: registry.Fixture, report: registry.Report) -> None:
    """Values, output, classes of faults, exact texts that are not the host's own."""
    fixtures = json.loads((fixture.path / 'cases.json').read_text())
    differing: dict[str, list[str]] = {'API': [], 'file mode': [], 'REPL': []}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for case in fixtures['cases']:
            program = case['program']
            got, want = _api(program), _wanted(case['api'])
            if got != want:
                differing['API'].append(f'{program}: {got} instead of {want}')
            Path('program.lisp').write_text(program, encoding='utf-8')
            for mode, arguments, typed in (
                ('file mode', ['program.lisp'], ''),
                ('REPL', [], program + '\n'),
            ):
                key = {'file mode': 'file_mode', 'REPL': 'repl_mode'}[mode]
                out, status = _command(arguments, typed)
                want_out = _comparable(case[key]['stdout'])
                if (_comparable(out), status) != (want_out, case[key]['returncode']):
                    differing[mode].append(f'{program}: {out!r} instead of {want_out!r}')
        for mode, programs in differing.items():
            note = f'{len(fixtures["cases"])} programs'
            report.below(mode, len(programs), 0, '; '.join([note, *programs[:3]]))
        _sessions(fixtures.get('sessions', {}), report)


def _sessions(sessions: dict[str, Any], report: registry.Report) -> None:
    for name, text in sessions.get('library', {}).items():
        Path(os.path.basename(name)).write_text(text, encoding='utf-8')
    differing = []
    known = [name for name in sessions if name in _SESSIONS or name in _FILES]
    for name in known:
        if name in _FILES:
            out, status = _command([_FILES[name]])
        else:
            out, status = _command([], _SESSIONS[name])
        if (out, status) != (sessions[name]['stdout'], sessions[name]['returncode']):
            differing.append(f'{name}: {out!r} instead of {sessions[name]["stdout"]!r}')
    if known:
        report.below('sessions', len(differing), 0, '; '.join([f'{len(known)}', *differing]))
