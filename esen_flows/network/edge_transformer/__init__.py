"""The edge transformer family; of structures it knows only the GraphBatch."""
