"""``original_quirks`` beyond the table of lisp_test.py, permissions, and the prompt's commands.

The values and messages of the original are those of utils/mini_lisp.py of adminiavs/HRM-Lisp on
CPython 3.11.
"""

import subprocess
import sys

import pytest

from hrm_jax.lisp import builtins, errors, forms
from hrm_jax.lisp import help as help_lib
from hrm_jax.lisp import interpreter as interpreter_lib


def run(program, quirks=True, **kwargs):
    lisp = interpreter_lib.Interpreter(lambda _: None, original_quirks=quirks, **kwargs)
    return [lisp.text(value) for value in lisp.run(program)]


@pytest.mark.parametrize(
    ('program', 'default', 'quirks'),
    [
        ("(simplify '(begin x))", '(begin x)', 'x'),
        ("(simplify '(begin (begin (+ 0 x))))", '(begin x)', 'x'),
        ("(simplify '((begin +) 0 x))", '((begin +) 0 x)', 'x'),
        ("(simplify '(+ (begin (+ 1 x)) 0))", '(begin (+ 1 x))', '(+ 1 x)'),
        ("(simplify '(begin (begin)))", '(begin (begin))', '()'),
        ("(simplify '(/ 0.5))", '2', '2.0'),
        ("(simplify '(* 2.0))", '2.0', '2.0'),
        ("(simplify '(- 9007199254740993 1))", '9007199254740992', '9007199254740991'),
        ("(eq? '() '())", '#t', '#f'),
        ('(eq? (list) (list))', '#t', '#f'),
        ('(eq? (cdr (list 1)) ())', '#t', '#f'),
        ("((lambda (x) (eq? x x)) '())", '#t', '#t'),
        ("((lambda (x) (eq? (cdr x) (cdr x))) '(1 2))", '#t', '#f'),
        ("((lambda (x) (eq? (car x) (car x))) '((1) 2))", '#t', '#t'),
        ('(eq? 1000 1000)', '#t', '#f'),
        ('((lambda (x) (eq? x x)) 1000)', '#t', '#t'),
        ('(eq? 256 256)', '#t', '#t'),
        ('(eq? "a" "a")', '#f', '#t'),
        ('(eq? "ab" "ab")', '#f', '#f'),
        ("(= '() (list))", '#t', '#t'),
        ("(null? (cdr '(1)))", '#t', '#t'),
        ("(cons 1 (cdr '(2)))", '(1)', '(1)'),
        ("(length (cons 1 (cons 2 '())))", '2', '2'),
        ('(- 1 0.1 0.2 0.3)', '0.39999999999999997', '0.3999999999999999'),
    ],
)
def test_values(program, default, quirks):
    assert run(program, quirks=False) == [default]
    assert run(program) == [quirks]


@pytest.mark.parametrize(
    ('program', 'text', 'kind'),
    [
        ('(lambda)', 'not enough values to unpack (expected at least 2, got 1)', 'arity'),
        ('(lambda 5 x)', "'int' object is not iterable", 'type'),
        ('(lambda #t x)', "'bool' object is not iterable", 'type'),
        ('(define () 1)', 'list index out of range', 'arity'),
        ('(set! (f x) 1)', "unhashable type: 'list'", 'type'),
        ('(load 5)', '[Errno 9] Bad file descriptor', 'io'),
        ('(load -1)', 'negative file descriptor', 'type'),
        ("(load '(1))", 'expected str, bytes or os.PathLike object, not list', 'type'),
        ('(load 1.5)', 'expected str, bytes or os.PathLike object, not float', 'type'),
        ('(load "/")', "[Errno 21] Is a directory: '/'", 'io'),
        ('(use 5)', "'int' object has no attribute 'startswith'", 'type'),
        ("(use '(a b))", "'list' object has no attribute 'startswith'", 'type'),
        ('(use "")', 'Empty module name', 'host'),
        ('(cons 1 2)', "'int' object is not iterable", 'type'),
        ('(car car)', "'function' object is not subscriptable", 'type'),
        ("(- '(1))", "bad operand type for unary -: 'list'", 'type'),
        ("(< '(1) 2)", "'<' not supported between instances of 'list' and 'int'", 'type'),
        ('(/ 1 "a")', "unsupported operand type(s) for /=: 'float' and 'str'", 'type'),
        ("(eval-with-limits 1 (sqrt (pow 10 '(x))) 9 #f)", '', 'type'),
    ],
)
def test_errors_are_the_hosts(program, text, kind):
    with pytest.raises(errors.LispError) as caught:
        run(program, allow_use=True)
    assert text in str(caught.value)
    assert caught.value.kind == kind


def test_malformed_bindings_and_lists_as_the_host_has_them():
    assert run('(define (1 a) a)') == ['1']
    assert run('(define ((f a) b) b)') == ["['f', 'a']"]
    assert run("(* '(1 2) 2) (< '(1 (2)) '(1 (3)))") == ['(1 2 1 2)', '#t']
    assert run('(pow 2 10 7)') == ['2']
    with pytest.raises(errors.LispLimitError):
        run('(pow 3 (pow 2 90000) (pow 2 90001))')


@pytest.mark.parametrize('quirks', [False, True])
def test_load_reads_files_only_when_allowed(tmp_path, quirks):
    path = tmp_path / 'lib.lisp'
    path.write_text('(define answer 42)')
    program = f'(load "{path}") answer'
    for allowed in ({'allow_load': True}, {'allow_use': True}):
        assert run(program, quirks, **allowed) == ['answer', '42']
    with pytest.raises(errors.LispError, match=r'load must be enabled.*--allow-load') as caught:
        run(program, quirks)
    assert caught.value.kind == 'host'
    lisp = interpreter_lib.Interpreter(lambda _: None, original_quirks=quirks)
    lisp.run_file(str(path))  # the file that a person named needs no permission


def command(typed, *flags):
    return subprocess.run(
        [sys.executable, '-m', 'hrm_jax.lisp', *flags],
        input=typed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize('word', ['quit', 'exit', '(quit)', '(exit)', '(begin (display 1) (quit))'])
def test_the_session_can_be_left(word):
    done = command(f'(+ 1 2)\n{word}\n(+ 40 2)\n')
    assert done.returncode == 0
    assert '3' in done.stdout
    assert '42' not in done.stdout
    assert done.stderr.startswith('A small Lisp.')


def test_names_of_the_prompt_can_be_rebound_and_are_absent_with_quirks():
    done = command('(define quit 5)\nquit\n(+ 40 2)\n')
    assert '5' in done.stdout
    assert '42' in done.stdout
    done = command('quit\n(help)\n', '--original-quirks')
    assert done.stdout.count('unbound symbol') == 2
    assert not done.stderr


def test_help_lists_exactly_what_there_is():
    lisp = interpreter_lib.Interpreter()
    names = [name for name in lisp._machine.globals.names if not name.startswith('#')]
    assert sorted(help_lib.BUILTINS) == sorted(names)
    assert sorted(help_lib.FORMS) == sorted(forms.SPECIAL)
    done = command('(help)\n(help "eq?")\n(help "nothing")\n')
    for call, _ in (help_lib.BUILTINS | help_lib.FORMS).values():
        assert call in done.stdout
    assert '(eq? a b): the same object' in done.stdout
    assert 'there is no nothing' in done.stdout


def test_a_reader_that_leaves_ends_the_session_quietly():
    shell = f'yes "(list 1 2 3 4 5 6 7 8 9)" | {sys.executable} -m hrm_jax.lisp | head -1'
    done = subprocess.run(
        ['bash', '-c', shell], capture_output=True, text=True, timeout=120, check=False
    )
    assert 'Traceback' not in done.stderr
    assert 'BrokenPipe' not in done.stderr


def test_read_file_names_what_is_no_plain_file(tmp_path):
    with pytest.raises(errors.LispError, match='Is a directory'):
        builtins.read_file(str(tmp_path))
    with pytest.raises(errors.LispError, match='plain file'):
        builtins.read_file('/dev/zero')
