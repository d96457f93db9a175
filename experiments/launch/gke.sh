#!/usr/bin/env bash
# TPU slices on GKE without XPK: a JobSet, on a cluster with TPU node pools and JobSet installed.
#
#   docker build -f experiments/launch/Dockerfile --build-arg EXTRA=tpu -t IMAGE . && docker push IMAGE
#   NAME=hrm IMAGE=... CLAIM=share ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=4x4 HOSTS=4 CHIPS=4 \
#   experiments/launch/gke.sh --config=configs/arc1.py --workdir=/mnt/share/runs/arc1
#
# CLAIM is a PersistentVolumeClaim that many hosts may write (Filestore); it is mounted at
# /mnt/share and must hold the workdir and the data. HOSTS x CHIPS is the size of the topology.
# Preempted slices are restarted by the cluster; errors that a person must fix are not. The same
# command stops a running one (it saves first) and resumes from there. Logs: kubectl logs -f
# -l jobset.sigs.k8s.io/jobset-name=hrm --prefix.
# Variables: NAME, IMAGE, CLAIM, ACCELERATOR, TOPOLOGY, HOSTS, CHIPS; NUM_SLICES (1),
# MAX_RESTARTS (100), DRY_RUN (prints the manifest as well).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need NAME IMAGE CLAIM ACCELERATOR TOPOLOGY HOSTS CHIPS
check_trainer_flags "$@"

words() {  # as a list of JSON strings, which YAML reads
  "$PYTHON" -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $MAX_RESTARTS
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: ${NUM_SLICES:-1}
      template:
        spec:
          parallelism: $HOSTS
          completions: $HOSTS
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: train, operator: In, values: [1, 2]}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
                cloud.google.com/gke-tpu-topology: $TOPOLOGY
              containers:
                - name: train
                  image: $IMAGE
                  command: $(words python -m hrm_jax.main --distributed=on "$@")
                  ports:
                    - containerPort: 8471
                    - containerPort: 8080
                  resources:
                    limits: {google.com/tpu: $CHIPS}
                  volumeMounts:
                    - {name: share, mountPath: /mnt/share}
              volumes:
                - name: share
                  persistentVolumeClaim: {claimName: $CLAIM}
YAML
}

# What a JobSet runs cannot be changed afterwards, so an existing one is deleted.
run kubectl delete jobset "$NAME" --ignore-not-found --wait=true
if [[ -n $DRY_RUN ]]; then
  manifest "$@"
  run kubectl apply -f -
else
  manifest "$@" | kubectl apply -f -
fi
