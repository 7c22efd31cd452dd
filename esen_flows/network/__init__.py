"""Torch modules only: no files, no units, no structures beyond a GraphBatch."""
