#!/usr/bin/env bash
# Runs a command inside a queue job and forwards the queue's signals to it: run.sh COMMAND ...
#
# Start it with `exec`, so that it is the process that the queue knows.
#   RESUBMIT=1   a job that was stopped by its time limit with work left (status 75) submits its script, SCRIPT, again
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

# qdel sends SIGTERM: a deleted job is not submitted again.
if [ "$status" -eq 75 ] && [ "$cancelled" = no ] && [ "${RESUBMIT:-0}" = 1 ] && [ -n "${SCRIPT-}" ]; then
    echo "run.sh: work is left; $SCRIPT is submitted again"
    qsub -v RESUBMIT=1 "$SCRIPT"
fi
exit "$status"
