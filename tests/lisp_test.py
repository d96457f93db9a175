"""The Lisp: language, limits, simplifier, commands; no program may crash or hang it."""

import pathlib
import subprocess
import sys
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from hrm_jax.lisp import errors, host, reader, values
from hrm_jax.lisp import interpreter as interpreter_lib
from hrm_jax.lisp import limits as limits_lib


def run(program, quirks=False, **kwargs):
    """Returns the printed values, then the output where there is some."""
    out = []
    lisp = interpreter_lib.Interpreter(out.append, original_quirks=quirks, **kwargs)
    shown = [lisp.text(value) for value in lisp.run(program) if value is not None]
    return shown + ([''.join(out)] if out else [])


@pytest.mark.parametrize(
    ('program', 'default', 'quirks'),
    [
        ('(+ 1 2 3)', '6', '6'),
        ('(/ 8 2)', '4.0', '4.0'),
        ("(eq? 'a 'a)", '#t', '#f'),
        ('(equal? \'a "a")', '#f', '#t'),
        ('(= #t 1)', '#f', '#t'),
        ('(* 1_000 0x10)', '16000', '16000'),
        ("(simplify '(/ 0 0))", '(/ 0 0)', '0'),
        ("(simplify '(* 9007199254740993 3))", '27021597764222979', '27021597764222976'),
        ("(simplify '(and #t x))", '(and x)', 'x'),
        ("(simplify '(or x #t y))", '(or x #t)', '#t'),
        ("(simplify '(lambda (+ 0 x) (+ 0 x)))", '(lambda (+ 0 x) x)', '(lambda x x)'),
        ("(simplify '(begin x (begin)))", '(begin x (begin))', '(begin x ())'),
        ("(simplify '(+ 1 (+ 2 x) 0))", '(+ 1 2 x)', '(+ 1 2 x)'),
        ("(eval-with-limits '(+ 1 2) #f #f #f)", '3', errors.LispTimeoutError),
        ('(* "ab" 2)', errors.LispError, 'abab'),
        ('(+ #t 1)', errors.LispError, '2'),
        ('((lambda x x) 1)', errors.LispError, '1'),
        ('(length "a;b") ; comment', '3', '3'),
        ('1;2', '1', errors.LispError),
    ],
)
def test_default_and_original_behaviour(program, default, quirks):
    for expected, mode in ((default, False), (quirks, True)):
        if isinstance(expected, str):
            assert run(program, mode) == [expected]
        else:
            with pytest.raises(expected):
                run(program, mode)


@pytest.mark.parametrize(
    ('program', 'kind', 'text'),
    [
        ('(+ 1', 'parse', r"missing '\)' in list \(line 1, column 1\)"),
        ('x\n)', 'parse', r"unexpected '\)' \(line 2, column 1\)"),
        ("'", 'parse', 'unexpected EOF'),
        ('"a', 'parse', 'unterminated string'),
        ('foo', 'unbound', 'unbound symbol: foo'),
        ('((lambda (a) a))', 'arity', 'expected 1 args, got 0'),
        ('(sqrt 1 2)', 'arity', 'sqrt takes 1 args, got 2'),
        ('(if #t 1)', 'arity', 'if takes 3 parts, got 2'),
        ('(car 5)', 'type', 'car takes a list with elements, got integer 5'),
        ('(1 2)', 'type', 'attempt to call non-procedure: 1'),
        ('(/ 1 0)', 'arithmetic', 'division by zero'),
        ('(pow -8 0.5)', 'arithmetic', 'not a real number'),
        ('(use "os")', 'host', 'allow-use'),
        ('(load "no/such/file")', 'io', 'No such file'),
        ('(load "/dev/zero")', 'io', 'must be a plain file'),
        ('(pow 7 (pow 7 77))', 'limit', 'bits'),
        ('(define (f n) (+ 1 (f n))) (f 0)', 'recursion', 'more than 5000 calls wait'),
    ],
)
def test_errors_state_the_kind_and_what_came(program, kind, text):
    with pytest.raises(errors.LispError, match=text) as caught:
        run(program, limits=limits_lib.Limits(max_depth=5000), allow_load=True)
    assert caught.value.kind == kind


def test_deep_structures_and_recursion_need_no_host_stack():
    depth = 100_000
    nested = "'" + '(' * depth + ')' * depth
    program = f"""
    (define (count n) (if (= n 0) 0 (+ 1 (count (- n 1)))))
    (define (loop n) (if (= n 0) 'done (loop (- n 1))))
    (count {depth // 2}) (loop {depth // 2}) (define deep {nested}) (equal? deep {nested})
    (length (simplify deep))
    """
    assert run(program)[2:] == [str(depth // 2), 'done', 'deep', '#t', '1']
    assert len(run(nested)[0]) == 2 * depth


@pytest.mark.parametrize(
    'program',
    [
        '(define (f) (f)) (f)',
        '(define (f n) (f (* n n))) (f 3)',
        '(define (f l) (f (list l l))) (f 1)',
        "(eval-with-limits '(begin (define (f) (f)) (f)) #f #f #f)",
        '(define (f l n) (if (= n 0) (display l) (f (list l l) (- n 1)))) (f 1 40)',
        '(define (f l n) (if (= n 0) l (f (list l l) (- n 1)))) (equal? (f 1 40) (f 1 40))',
    ],
)
def test_a_limit_ends_every_loop_and_every_huge_value(program):
    limits = limits_lib.Limits(max_steps=20_000, max_seconds=5, max_nodes=10_000, max_chars=10_000)
    start = time.monotonic()
    with pytest.raises(errors.LispLimitError):
        run(program, limits=limits)
    assert time.monotonic() - start < 20


def test_time_limit_alone_ends_a_loop():
    with pytest.raises(errors.LispTimeoutError, match='timed out'):
        run('(define (f) (f)) (f)', limits=limits_lib.Limits(max_seconds=0.05))


def test_inner_limits_never_exceed_outer_ones_and_end_with_their_expression():
    program = "(eval-with-limits '(+ 1 2) 4 #f #f) (+ 1 (+ 2 (+ 3 4)))"
    assert run(program) == ['3', '10']
    with pytest.raises(errors.LispStepLimitError):
        run("(eval-with-limits '(+ 1 2) 3 #f #f)")
    with pytest.raises(errors.LispStepLimitError):
        run(
            "(eval-with-limits '(+ 1 (+ 2 3)) 1000 #f #f)",
            limits=limits_lib.Limits(max_steps=9),
        )


def test_error_stack_names_pending_expressions_and_trace_indents():
    with pytest.raises(errors.LispError) as caught:
        run('(define (f x) (+ 1 (car x))) (list (f 5))')
    assert caught.value.stack == ['(car x)', '(+ 1 (car x))', '(list (f 5))']
    traced = run("(trace-on) (eval-with-limits '(+ 1 (* 2 3)) 99 #f #f)")
    assert traced == ['7', '(+ 1 (* 2 3))\n  +\n  1\n  (* 2 3)\n    *\n    2\n    3\n']


def test_use_imports_only_when_allowed(tmp_path, monkeypatch):
    (tmp_path / 'lisp_plugin.py').write_text(
        "def register(env):\n    env['twice'] = lambda items: items * 2\n"
        "    env['fail'] = lambda: 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run('(use "lisp_plugin") (twice (list 1 2))', allow_use=True) == [
        'lisp_plugin',
        '(1 2 1 2)',
    ]
    with pytest.raises(errors.LispError, match='ZeroDivisionError') as caught:
        run('(use "lisp_plugin") (fail)', allow_use=True)
    assert caught.value.kind == 'host'
    with pytest.raises(errors.LispError, match='must be enabled'):
        run('(use "lisp_plugin")')


def _command(arguments, typed=''):
    return subprocess.run(
        [sys.executable, '-m', 'hrm_jax.lisp', *arguments],
        input=typed, capture_output=True, text=True, timeout=60,
        cwd=pathlib.Path(__file__).parent.parent, check=False,
    )  # fmt: skip


def test_commands(tmp_path):
    typed = '; comment )\n(+ 1\n2)\n"a\nb"\n(car 5) 3\n(+ 2 2)\n'
    done = _command([], typed)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == 'lisp> lisp> ...   3'
    assert lines[1:3] == ['lisp> ...   a', 'b']
    assert lines[3] == 'lisp> Error: car takes a list with elements, got integer 5'
    assert lines[-2:] == ['lisp> 4', 'lisp> ']
    path = tmp_path / 'program.lisp'
    path.write_text('(display "é") (define (f) (f)) (f)', encoding='utf-8')
    done = _command([str(path), '--max-steps', '1000'])
    assert (done.returncode, done.stdout) == (1, 'é')
    assert 'Error: step budget exceeded' in done.stderr


_NAMES = [
    '+', '-', '*', '/', 'sqrt', 'pow', '<', '>=', '=', 'eq?', 'equal?', 'cons', 'car', 'cdr',
    'list', 'length', 'null?', 'pair?', 'not', 'display', 'newline', 'simplify', 'eval',
    'eval-simplified',
    'eval-with-limits', 'trace-on', 'trace-off', 'quote', 'if', 'define', 'set!', 'lambda',
    'begin', 'and', 'or', 'f', 'x', 'y', 'load', 'use', '#t', '#f', 'nan', '.',
]  # fmt: skip
_ATOMS = st.one_of(
    st.sampled_from(_NAMES),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(['"a"', '""', '1e400', '-0x1f', '9' * 400, "'x", '()', "'(1 2)"]),
)
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.lists(inner, max_size=5).map(lambda p: f'({" ".join(p)})'),
    max_leaves=25,
)
_PROGRAMS = st.one_of(
    st.lists(_EXPRESSIONS, max_size=4).map(' '.join),
    st.lists(
        st.sampled_from(
            [*_NAMES, '(', ')', "'", '"', ';', '\n', '\\', '\x00', 'é', '(define (f x) ']
        ),
        max_size=25,
    ).map(' '.join),
    st.text(max_size=40),
)


def assert_described(error, quirks):
    assert str(error)
    assert len(error.format_stack(quirks).splitlines()) <= 21


@hypothesis.settings(
    max_examples=500, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(program=_PROGRAMS, quirks=st.booleans())
def test_random_and_malformed_programs_end_with_a_value_or_a_lisp_error(program, quirks):
    limits = limits_lib.Limits(max_steps=2000, max_seconds=2, max_nodes=2000, max_chars=5000)
    start = time.monotonic()
    try:
        run(program, quirks, limits=limits)
    except errors.LispError as error:
        assert_described(error, quirks)
    assert time.monotonic() - start < 10
    reader.open_parentheses(program, quirks)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(expression=_EXPRESSIONS.filter(lambda e: 'trace' not in e and 'f' not in e))
def test_simplification_is_idempotent_and_printing_round_trips(expression):
    lisp = interpreter_lib.Interpreter(lambda _: None)
    try:
        [read] = lisp.read(expression)
    except (errors.LispError, ValueError):
        return
    again = host.from_host(host.to_host(read))
    assert values.is_equal(read, again) or 'nan' in expression
    simple = lisp.run('simplify')[0].function(None, None, [read])
    twice = lisp.run('simplify')[0].function(None, None, [simple])
    assert lisp.text(simple) == lisp.text(twice)
