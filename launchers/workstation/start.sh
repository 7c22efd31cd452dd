#!/usr/bin/env bash
# A worker with a process, a GPU and threads of its own for each of {{ gpus_per_node }} GPUs; it ends when nothing is left to do.
. {{ folder }}/environment.sh
exec esen-flows worker --devices {{ devices }} --threads {{ cpus_per_gpu }} --folder {{ folder }}/log "$@"
