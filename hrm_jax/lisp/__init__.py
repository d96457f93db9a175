"""A small Lisp: reader, interpreter with limits and tracing, simplifier, REPL.

The language is the one of adminiavs/HRM-Lisp (mini_lisp). It stands alone: nothing here
imports the rest of the package, and nothing outside the standard library is needed.

    python -m hrm_jax.lisp [FILE] [--max-steps N] [--max-seconds S] [--allow-load]

At the prompt ``(help)`` lists all forms and builtins, and ``quit`` ends the session.

Where the original's behaviour is harmful, the default differs; ``original_quirks`` brings it back:

================================== ============================ ==========================
what                               default                      original_quirks
================================== ============================ ==========================
deep recursion                     up to ``max_depth``; calls   error at the host's depth
                                   in tail position are free
limits #f in eval-with-limits      no limit                     0: fails at once
``simplify?`` 0 or ""              true, as everywhere          false
two reads of a symbol              eq?                          not eq?
two empty lists, equal numbers     eq?                          eq? only where one object
#t and 1, 'a and "a"               different                    equal?
arithmetic on booleans, strings,   type error                   as the host does
lists
``a;b``, ``1"2"``                  end at ``;`` and ``"``       one symbol
comments and strings at the prompt understood, may span lines   parentheses count, may not
(lambda x ...)                     error                        one parameter per letter
``use``, ``load``                  only when they are allowed   only when they are allowed
(load 0)                           error                        error (there: an open file)
(help), quit, exit, banner         at the prompt                none
malformed lambda, define, load,    error                        the host's error
use
errors of a FILE                   standard error, with stack   standard output
(simplify '(/ 0 0)), '(and x)      left alone                   0, x
constants in products              exact                        through a float
parameter lists under simplify     left alone                   simplified
(simplify '(begin x))              left alone                   x
procedures print as                #<procedure name>            host representation
================================== ============================ ==========================
"""
