"""Figures from stored documents alone: nothing here computes, and nothing here imports phonopy, torch or a window."""
