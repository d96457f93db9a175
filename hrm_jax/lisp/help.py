"""Help text of ``(help)`` at the prompt: every special form and builtin in one line."""

# Name -> (call, meaning). A test holds that these are exactly the names that there are.
FORMS = {
    'quote': ("(quote e), 'e", 'e itself, not evaluated'),
    'if': ('(if test a b)', 'a, or b where test is #f or no value'),
    'define': ('(define x e), (define (f a b) e ...)', 'binds a name in the current scope'),
    'set!': ('(set! x e)', 'changes the nearest binding'),
    'lambda': ('(lambda (a b) e ...)', 'a procedure'),
    'begin': ('(begin e ...)', 'the value of the last expression'),
    'and': ('(and e ...)', '#t where every part is true, else #f'),
    'or': ('(or e ...)', 'the first true value, else #f'),
}
BUILTINS = {
    '+': ('(+ n ...)', 'sum'),
    '-': ('(- n m ...)', 'difference; of one number its negative'),
    '*': ('(* n ...)', 'product'),
    '/': ('(/ n m ...)', 'quotient, a float; of one number its reciprocal'),
    'sqrt': ('(sqrt n)', 'square root'),
    'pow': ('(pow n m)', 'n to the power m'),
    '<': ('(< a b)', 'also <=, >, >=: of two numbers or two strings'),
    '<=': ('(<= a b)', 'see <'),
    '>': ('(> a b)', 'see <'),
    '>=': ('(>= a b)', 'see <'),
    '=': ('(= a b)', 'equal values; lists part by part'),
    'equal?': ('(equal? a b)', 'the same as ='),
    'eq?': ('(eq? a b)', 'the same object, symbol or number'),
    'cons': ('(cons a list)', 'the list with a in front'),
    'car': ('(car list)', 'its first element'),
    'cdr': ('(cdr list)', 'the list without its first element'),
    'list': ('(list a ...)', 'a list'),
    'length': ('(length list)', 'of a list or string'),
    'null?': ('(null? a)', 'is it the empty list'),
    'list?': ('(list? a)', 'is it a list'),
    'symbol?': ('(symbol? a)', 'is it a symbol'),
    'number?': ('(number? a)', 'is it a number'),
    'boolean?': ('(boolean? a)', 'is it #t or #f'),
    'pair?': ('(pair? a)', 'is it a list with elements'),
    'not': ('(not a)', '#t where a is #f or no value'),
    'display': ('(display a ...)', 'prints values, one after the other'),
    'newline': ('(newline)', 'prints a line end'),
    'load': ('(load "file")', 'evaluates a file (needs --allow-load)'),
    'use': ('(use "module")', 'imports a Python module (needs --allow-use)'),
    'simplify': ("(simplify 'e)", 'an equal, simpler expression'),
    'eval': ("(eval 'e)", 'its value'),
    'eval-simplified': ("(eval-simplified 'e)", 'its value, simplified first'),
    'eval-with-limits': (
        "(eval-with-limits 'e steps ms simplify?)",
        'its value within a budget; #f: no limit',
    ),
    'trace-on': ('(trace-on)', 'prints every expression within eval-with-limits'),
    'trace-off': ('(trace-off)', 'ends that'),
}
PROMPT = {
    'help': ('(help)', 'this list; (help "car") explains one name'),
    'quit': ('quit', 'ends the session; so do exit and Ctrl-D'),
    'exit': ('exit', 'the same'),
}


def text(name: str = '') -> str:
    """Returns the list of all names, or the line of one.

    Args:
      name: of a form or builtin; '': all.
    """
    known = FORMS | BUILTINS | PROMPT
    if name:
        if name not in known:
            return f'there is no {name}; (help) lists all names'
        return ': '.join(known[name])
    width = max(len(call) for call, _ in (BUILTINS | PROMPT).values()) + 2
    lines = []
    for title, table in (('special forms', FORMS), ('builtins', BUILTINS), ('prompt', PROMPT)):
        lines.append(f'{title}:')
        lines += [f'  {call:<{width}}{meaning}' for call, meaning in table.values()]
    return '\n'.join([*lines, '#t and #f are the booleans; ; begins a comment.'])
