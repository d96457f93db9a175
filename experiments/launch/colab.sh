#!/usr/bin/env bash
# Colab with a GPU or a TPU. Three cells, after choosing the runtime's accelerator:
#
#   from google.colab import drive; drive.mount('/content/drive')
#   !git clone REPOSITORY /content/hrm_jax
#   !bash /content/hrm_jax/experiments/launch/colab.sh --config=configs/quickstart.py \
#       --workdir=/content/drive/MyDrive/hrm_jax/quickstart
#
# Colab takes the machine away when it likes; Drive keeps the workdir. Run the three cells again,
# and it resumes. Data are built with !cd /content/hrm_jax && python -m data_builders ...
# Variables: EXTRA (gpu, tpu or none; found out), PYTHON, MAX_RESTARTS (100), PAUSE (10 s), DRY_RUN.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
check_trainer_flags "$@"
cd "$ROOT"

if [[ -z ${EXTRA:-} ]]; then
  EXTRA=none
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    EXTRA=gpu
  elif compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    EXTRA=tpu
  fi
fi
case $EXTRA in
  gpu | tpu) packages=".[$EXTRA]" ;;
  none) packages=. ;;
  *) fail "EXTRA must be gpu, tpu or none; got $EXTRA" ;;
esac
run "$PYTHON" -m pip install --quiet "$packages"
until_done run "$PYTHON" -m hrm_jax.main "$@"
