#!/usr/bin/env bash
# A sweep as a Slurm array, one GPU a run. Never run with a GPU yet: see deploy/README.md.
#
#     python -m experiments.sweep --config=configs/sweeps/cifar10_figure6.py \
#         --workdir=/shared/figure6 --executor=print > runs.txt
#     sbatch --array=1-$(grep -c '^[^#]' runs.txt)%8 deploy/slurm_array.sh runs.txt
#
# Submit it from the checkout. A run that is done ends at once when its line is submitted again.
#SBATCH --job-name=resnet_jax
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log
set -uo pipefail

list=${1:?usage: sbatch --array=1-N deploy/slurm_array.sh runs.txt}
line=$(sed -n "${SLURM_ARRAY_TASK_ID:?not in an array}p" "$list")
[ -n "$line" ] || { echo "$list has no line $SLURM_ARRAY_TASK_ID" >&2; exit 2; }

srun --ntasks=1 bash -c "$line"
code=$?
if [ "$code" = 75 ]; then # interrupted, with everything saved
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
