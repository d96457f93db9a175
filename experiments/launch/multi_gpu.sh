#!/usr/bin/env bash
# One machine with one or more GPUs (or with CPUs only).
#
#   experiments/launch/multi_gpu.sh --config=configs/arc1.py --workdir=runs/arc1
#   PROCESSES=8 experiments/launch/multi_gpu.sh ...   # a process for every GPU of eight
#
# One process drives all GPUs, and that is the simplest; several share the work of feeding them.
# Restarts the trainer after a crash. Ctrl-C and SIGTERM save, and end it; the same command resumes.
# Variables: PROCESSES (1), PORT (a free one), PYTHON, MAX_RESTARTS (100), PAUSE (10 s), DRY_RUN.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PROCESSES=${PROCESSES:-1}
[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES must be a whole number above 0; got $PROCESSES"
check_trainer_flags "$@"
cd "$ROOT"

gpus() {  # their names, one a line
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | sed '/^$/d'
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=index --format=csv,noheader
  fi
}

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

mapfile -t GPUS < <(gpus)
SHARE=$((${#GPUS[@]} / PROCESSES))
((SHARE * PROCESSES == ${#GPUS[@]})) ||
  fail "PROCESSES=$PROCESSES must divide the ${#GPUS[@]} GPUs of this machine"

CHILDREN=()
stop() {
  STOPPED=yes
  kill -TERM "${CHILDREN[@]}" 2>/dev/null || true
}
trap stop TERM INT

start() {  # start INDEX FLAGS...
  local index=$1 share=()
  shift
  if ((PROCESSES > 1 && SHARE > 0)); then
    share=(env "CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${GPUS[*]:index * SHARE:SHARE}")")
  fi
  set -- "${share[@]}" "$PYTHON" -m hrm_jax.main "$@"
  if [[ -n $DRY_RUN ]]; then
    run "$@"
  else
    "$@" &
    CHILDREN+=($!)
  fi
}

all() {  # starts every process and waits for all of them
  local index port code=0 one
  CHILDREN=()
  if ((PROCESSES == 1)); then
    start 0 "$@"
  else
    port=${PORT:-$(free_port)}
    for ((index = 0; index < PROCESSES; index++)); do
      start "$index" --distributed=on "--coordinator_address=localhost:$port" \
        "--num_processes=$PROCESSES" "--process_id=$index" "$@"
    done
  fi
  for child in "${CHILDREN[@]}"; do
    one=0
    wait "$child" || one=$?
    while kill -0 "$child" 2>/dev/null; do  # a signal to this script ends wait early
      one=0
      wait "$child" || one=$?
    done
    # What asks for a restart counts most: the others may only have lost that process.
    if ((code == 0)) || wants_restart "$one"; then
      code=$one
    fi
  done
  return "$code"
}

until_done all "$@"
