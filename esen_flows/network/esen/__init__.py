"""The eSEN family; of structures it knows only the GraphBatch."""
