#!/usr/bin/env bash
# A TPU slice of Google Cloud, by gcloud alone: asks for it, installs the checkout, trains.
#
#   NAME=hrm ZONE=us-west4-a ACCELERATOR_TYPE=v5litepod-16 RUNTIME_VERSION=v2-alpha-tpuv5-lite \
#   NFS=10.0.0.2:/share experiments/launch/tpu_pod.sh \
#       --config=configs/arc1.py --workdir=/mnt/nfs/runs/arc1 --config.data.path=/mnt/nfs/data/arc1
#
# Runs from any machine with gcloud; leave it in tmux. A spot slice that is taken away is asked for
# again, and the run resumes. The same command resumes after anything else, too. At the end:
#   gcloud compute tpus queued-resources delete hrm --zone=us-west4-a --force
# Variables: NAME, ZONE, ACCELERATOR_TYPE, RUNTIME_VERSION; NFS (SERVER:/SHARE, mounted at /mnt/nfs:
# all hosts must see the workdir and the data), PROJECT (gcloud's own), SPOT (yes; empty: on demand),
# MAX_RESTARTS (100), PAUSE (10 s), DRY_RUN. What is not committed is not copied.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need NAME ZONE ACCELERATOR_TYPE RUNTIME_VERSION
check_trainer_flags "$@"
cd "$ROOT"

WHERE=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})
SPOT=${SPOT-yes}
PACKED=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$PACKED"' EXIT

state() {
  [[ -n $DRY_RUN ]] && return
  gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" \
    --format='value(state.state)' 2>/dev/null || true
}

ask() {  # returns when the slice is there
  local now
  while now=$(state); [[ $now != ACTIVE ]]; do
    case $now in
      '')
        run gcloud compute tpus queued-resources create "$NAME" "${WHERE[@]}" --node-id="$NAME" \
          --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" \
          ${SPOT:+--spot} || fail "the slice cannot be requested; see above"
        [[ -n $DRY_RUN ]] && return
        ;;
      FAILED | SUSPENDED)  # taken away: only a new request brings another one
        run gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet
        ;;
      *) echo "waiting for $NAME: $now" >&2 ;;
    esac
    sleep "$PAUSE"
  done
}

on_all() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker=all --command="$1"
}

install() {
  run git archive --format=tar.gz -o "$PACKED" HEAD &&
    run gcloud compute tpus tpu-vm scp "$PACKED" "$NAME:hrm_jax.tar.gz" "${WHERE[@]}" --worker=all &&
    # The image's Python may be older than what JAX wants; uv brings one.
    on_all "set -e; mkdir -p hrm_jax; tar -xzf hrm_jax.tar.gz -C hrm_jax; cd hrm_jax; \
      python3 -m pip install --quiet --user uv; uv=~/.local/bin/uv; \
      \$uv venv --quiet --allow-existing --python 3.12 .venv; \
      \$uv pip install --quiet --python .venv/bin/python '.[tpu]'" &&
    if [[ -n ${NFS:-} ]]; then
      on_all "set -e; command -v mount.nfs || sudo apt-get install -y -q nfs-common; \
        sudo mkdir -p /mnt/nfs; mountpoint -q /mnt/nfs || sudo mount $(quoted "$NFS") /mnt/nfs"
    fi
}

train() {  # a slice that is reached by ssh shows no sign of its other hosts: --distributed=on
  on_all "cd hrm_jax && .venv/bin/python -m hrm_jax.main --distributed=on $(quoted "$@")"
}

attempt() {
  local code=0
  ask
  { install && train "$@"; } || code=$?
  if ((code != 0)) && [[ -z $DRY_RUN && $(state) != ACTIVE ]]; then
    code=143  # the slice was taken away meanwhile
  fi
  return "$code"
}

until_done attempt "$@"
