# Sourced by the scripts beside it.

set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=python3
  [[ -x $ROOT/.venv/bin/python ]] && PYTHON=$ROOT/.venv/bin/python
fi
DRY_RUN=${DRY_RUN:-}            # anything: print the commands, run none
MAX_RESTARTS=${MAX_RESTARTS:-100}
PAUSE=${PAUSE:-10}              # seconds before a restart
STOPPED=                        # set once somebody wants this script to end

fail() {
  echo "error: $*" >&2
  exit 2
}

need() {  # need NAME...: variables that must be set
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || fail "set $name; see the first lines of $0"
  done
}

check_trainer_flags() {  # the flags of hrm_jax.main that every run needs
  local wanted
  for wanted in --config --workdir; do
    [[ " $* " == *" $wanted"[=\ ]* ]] || fail "give $wanted=... for hrm_jax.main; see the first lines of $0"
  done
}

run() {
  if [[ -n $DRY_RUN ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

quoted() {  # one string that a shell reads back as these words
  printf '%q ' "$@"
}

# The trainer ends with 0 when it is done, with 1 or 2 when a person must fix something and with
# 130 after Ctrl-C; 126 and 127 are the shell's, where there is no such program. Everything else is
# a preemption (it has saved, and asks for a restart) or a death (a signal, out of memory, a lost
# machine): the same command resumes from the last checkpoint.
wants_restart() {
  case $1 in 0 | 1 | 2 | 126 | 127 | 130) return 1 ;; *) return 0 ;; esac
}

until_done() {  # until_done COMMAND...: again and again, while its end asks for it
  local restarts=0 code
  while true; do
    code=0
    "$@" || code=$?
    if ! wants_restart "$code" || [[ -n $STOPPED ]]; then
      return "$code"
    fi
    if ((restarts >= MAX_RESTARTS)); then
      echo "ended with $code after $restarts restarts; giving up" >&2
      return "$code"
    fi
    restarts=$((restarts + 1))
    echo "ended with $code; restart $restarts of at most $MAX_RESTARTS in $PAUSE s" >&2
    sleep "$PAUSE"
  done
}
