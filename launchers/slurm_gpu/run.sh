#!/usr/bin/env bash
# Runs a command inside a queue job and forwards the queue's signals to it: run.sh COMMAND ...
#
# Start it with `exec`: SLURM's early warning (--signal=B:USR1@{{ warning_seconds }}) reaches the process of the batch script alone.
#   RESUBMIT=1   a job that was stopped by its time limit with work left (status 75) goes back into the queue, as it was submitted
command=
signalled=no
cancelled=no
forward() {
    signalled=yes
    [ "$1" = USR1 ] || cancelled=yes
    [ -n "$command" ] || exit 75 # nothing was begun
    kill -s "$1" "$command" 2>/dev/null
}
trap 'forward USR1' USR1
trap 'forward TERM' TERM

. {{ folder }}/environment.sh
"$@" &
command=$!
# A signal ends `wait` before the command has ended, so the status that counts is that of a `wait` without a signal.
while
    signalled=no
    wait "$command"
    status=$?
    [ "$signalled" = yes ]
do :; done

# scancel sends SIGTERM: a cancelled job does not come back.
if [ "$status" -eq 75 ] && [ "$cancelled" = no ] && [ "${RESUBMIT:-0}" = 1 ]; then
    echo "run.sh: work is left; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # SLURM ends what is left of this run
fi
exit "$status"
