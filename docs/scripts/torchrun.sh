#!/usr/bin/env bash
# Two processes under torchrun, started again until the training is finished.
#   torchrun.sh RECIPE WORK_DIR [key=value ...]
# SIGTERM to this script, or to torchrun, reaches every worker; they have a minute to save.
set -uo pipefail
recipe=$1 work_dir=$2; shift 2
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=60
stop=0 agent=
trap 'stop=1; kill -TERM "$agent" 2>/dev/null' TERM INT
while :; do
  torchrun --standalone --nproc-per-node=2 --signals_to_handle=SIGTERM,SIGINT,SIGUSR1 --no-python \
    hookline train --config-file "$recipe" --work-dir "$work_dir" --resume "$@" &
  agent=$!
  wait "$agent"; code=$?
  while kill -0 "$agent" 2>/dev/null; do wait "$agent"; code=$?; done # the trap had cut the wait short
  [ "$code" -eq 0 ] && exit 0
  [ "$stop" -eq 1 ] && exit 143
  echo "torchrun left with $code: starting again in 10 s" >&2
  sleep 10
done
