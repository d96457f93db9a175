#!/usr/bin/env bash
# A SLURM cluster: one process for every GPU, on as many nodes as wanted. From the checkout's root:
#
#   sbatch --nodes=2 experiments/launch/slurm.sh --config=configs/arc1.py --workdir=/shared/runs/arc1
#
# Flags of sbatch override the lines below: --gpus-per-node=4 --ntasks-per-node=4 (keep them equal),
# --partition, --account, --time. On CPU nodes, where no GPUs are configured: --gpus-per-node=0
# --ntasks-per-node=1, and JAX_PLATFORMS=cpu in the environment. The workdir and the data must be on storage that all nodes see.
# Five minutes before the time limit the trainer gets a signal to stop; it saves, and the job goes back
# into the queue. So it does when it is preempted or a node dies. `scancel` ends it for good.
# Variables: PYTHON, MAX_RESTARTS (100), DRY_RUN.
#SBATCH --job-name=hrm_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

# sbatch copies this file elsewhere, so the checkout is where the job was submitted.
ROOT=${SLURM_SUBMIT_DIR:-$PWD}
source "$ROOT/experiments/launch/common.sh"
check_trainer_flags "$@"
cd "$ROOT"

step=
# SLURM may send its notice to this shell alone (--signal=B:TERM@300, scancel --batch). It must reach
# the tasks, which save; srun itself would end them at once.
trap '[[ -z $step ]] || scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null || true' TERM
# JAX reads the coordinator, the number of processes and the GPU of each from SLURM's variables.
# A task that dies leaves the others to the trainer, which ends them when it is missed.
run srun --kill-on-bad-exit=0 --wait=0 "$PYTHON" -m hrm_jax.main --distributed=on "$@" &
step=$!
while true; do
  code=0
  wait "$step" || code=$?
  kill -0 "$step" 2>/dev/null || break  # else the notice has ended the wait, not the step
done
was_cancelled() {  # by scancel: then it must not come back (time limits and lost nodes have a reason)
  local facts
  facts=$(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null) || return 1
  [[ $facts == *JobState=CANCELLED* || $facts == *JobState=COMPLETING*Reason=None* ]]
}
if wants_restart "$code" && ! was_cancelled; then
  if ((${SLURM_RESTART_COUNT:-0} >= MAX_RESTARTS)); then
    echo "ended with $code after ${SLURM_RESTART_COUNT} restarts; giving up" >&2
    exit "$code"
  fi
  echo "ended with $code; back into the queue" >&2
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
