"""The eSEN as torch modules and compiled CPU kernels; of structures it knows only the GraphBatch."""
