#!/bin/bash
# A run of a job list for each task of an array job; from the project's checkout:
#
#   dfer-zoo crossval --model hdf --data dfew --seeds 0-2 --list > jobs.txt
#   sbatch --array=1-$(wc -l < jobs.txt) experiments/slurm.sh jobs.txt
#
# When all are done, the first line without --list prints the result. With --list it lists only what is missing: write
# the list again before submitting again. At SIGTERM (before the time limit, or at pre-emption) a run saves last.ckpt
# and ends; requeued or submitted again, it continues from there.
#
#SBATCH --job-name=dfer-zoo
#SBATCH --output=slurm-%A_%a.log
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#
# One run on several devices: srun starts a process for each of them. For 2 nodes of 4 GPUs:
#   --nodes=2 --ntasks-per-node=4 --gpus-per-node=4  above, and  --trainer.num_nodes 2 --trainer.devices 4  behind the
#   words of crossval. Without SLURM, on each of the 2 nodes, HOST being the first:
#   torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m dfer_zoo fit ... \
#     --trainer.num_nodes 2 --trainer.devices 4

set -eu
command=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")
test -n "$command" || { echo "$1 has no line $SLURM_ARRAY_TASK_ID; submit --array=1-$(wc -l < "$1")." >&2; exit 2; }
eval "exec srun $command"
