#!/usr/bin/env bash
# A training that Slurm may preempt, and that goes on where it stopped.
#   sbatch [--partition=P] slurm.sh RECIPE WORK_DIR [key=value ...]
#SBATCH --job-name=hookline
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
set -euo pipefail
recipe=$1 work_dir=$2; shift 2
# srun: Slurm sends its notice to the steps of a job, not to the batch shell.
# on_suspend=requeue: a job that merely exits counts as COMPLETED and does not come back.
srun hookline train --config-file "$recipe" --work-dir "$work_dir" --resume train.suspend.on_suspend=requeue "$@"
