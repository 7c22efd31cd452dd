#!/usr/bin/env bash
# Runs a command inside a queue job, and hands it the queue's signals: run.sh COMMAND ...
#
# Start it with `exec`: SLURM's early warning (--signal=B:USR1@{{ warning_seconds }}) reaches the process of the batch script alone.
#   RESUBMIT=1   a job that its time stopped with work left (status 75) goes back into the queue, as it was submitted
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
# A signal ends `wait` before the command has ended; the status that counts is that of a `wait` without one.
while
    signalled=no
    wait "$command"
    status=$?
    [ "$signalled" = yes ]
do :; done

# SIGTERM is scancel's: who cancels a job does not want it back.
if [ "$status" -eq 75 ] && [ "$cancelled" = no ] && [ "${RESUBMIT:-0}" = 1 ]; then
    echo "run.sh: work is left; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # SLURM ends what is left of this run
fi
exit "$status"
