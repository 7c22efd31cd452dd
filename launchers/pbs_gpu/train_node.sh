#!/usr/bin/env bash
# One node's part of a training on {{ nodes }} nodes: train_node.sh FIRST_NODE PORT ARGUMENTS_OF_TRAIN ...
# A training saves every minute. To continue it after its job has ended, submit train.pbs again.
. {{ folder }}/environment.sh
cd {{ folder }} || exit
export OMP_NUM_THREADS={{ cpus_per_gpu }}
address=$1 port=$2
shift 2
exec torchrun --nnodes={{ nodes }} --node-rank="$PBS_NODENUM" --nproc-per-node={{ gpus_per_node }} \
    --master-addr="$address" --master-port="$port" --no-python esen-flows train "$@"
