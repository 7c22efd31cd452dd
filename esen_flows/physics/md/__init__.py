"""Molecular dynamics of many structures that share their force calls, and what follows from trajectories."""
