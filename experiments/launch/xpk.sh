#!/usr/bin/env bash
# TPU slices on GKE, by XPK, on a cluster that XPK made.
#
#   docker build -f experiments/launch/Dockerfile --build-arg EXTRA=tpu -t IMAGE . && docker push IMAGE
#   NAME=hrm CLUSTER=my-cluster ZONE=us-west4 TPU_TYPE=v5litepod-16 IMAGE=... \
#   experiments/launch/xpk.sh --config=configs/arc1.py --workdir=/mnt/share/runs/arc1
#
# The workdir and the data must be on storage of the cluster that all hosts mount; once:
#   xpk storage attach share --type=gcpfilestore --mount-point=/mnt/share --auto-mount=true \
#       --readonly=false --size=1024 --cluster=my-cluster --zone=us-west4 ...
# GKE restarts a workload that was preempted. The same command later makes a new workload, which
# resumes from the workdir. Look at it: xpk workload list --cluster=my-cluster.
# Variables: NAME, CLUSTER, ZONE, TPU_TYPE, IMAGE; PROJECT (gcloud's own), NUM_SLICES (1),
# MAX_RESTARTS (100), DRY_RUN.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need NAME CLUSTER ZONE TPU_TYPE IMAGE
check_trainer_flags "$@"

# A workload's name cannot be used again while the last one is listed.
WORKLOAD="$NAME-$(date +%m%d-%H%M%S)"
run xpk workload create --workload="$WORKLOAD" --cluster="$CLUSTER" --zone="$ZONE" \
  ${PROJECT:+"--project=$PROJECT"} --tpu-type="$TPU_TYPE" --num-slices="${NUM_SLICES:-1}" \
  --docker-image="$IMAGE" --max-restarts="$MAX_RESTARTS" --termination-grace-period-seconds=300 \
  --command="python -m hrm_jax.main --distributed=on $(quoted "$@")"
