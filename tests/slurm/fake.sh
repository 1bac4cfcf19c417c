#!/usr/bin/env bash
# Stands in for each of Slurm's programs in tests: prints what a real Slurm 22.05 printed (recorded/), as the files in
# FAKE_SLURM say.
#
#   squeue.json, squeue.txt   the queue; without the first, --json is unknown, as before Slurm 20.11
#   submitted/                becomes the queue after a submission
#   job-N                     what `scontrol show job` prints of job N
#   refuse                    what sbatch prints to standard error, with exit status 1
set -euo pipefail
cd "$FAKE_SLURM"
program=$(basename "$0")
echo "$program $*" >>calls

case "$program" in
sinfo) printf 'gpu\nurgent\n' ;;
squeue)
    if [[ "$*" != *--json* ]]; then
        cat squeue.txt
    elif [[ -e squeue.json ]]; then
        cat squeue.json
    else
        echo "squeue: unrecognized option '--json'" >&2
        exit 1
    fi
    ;;
sbatch)
    env >environment
    if [[ -e refuse ]]; then
        cat refuse >&2
        exit 1
    fi
    [[ ! -d submitted ]] || cp submitted/* .
    number=$(($(cat number 2>/dev/null || echo 0) + 1))
    echo "$number" | tee number
    ;;
scontrol)
    if [[ $2 == config ]]; then
        printf 'Configuration data as of 2026-11-26T15:00:00\nClusterName             = tiny\n'
    elif [[ -e "job-$4" ]]; then
        cat "job-$4"
    else
        echo "slurm_load_jobs error: Invalid job id specified" >&2
        exit 1
    fi
    ;;
sacct)
    echo "Slurm accounting storage is disabled" >&2
    exit 1
    ;;
scancel) ;;
esac
