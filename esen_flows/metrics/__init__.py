"""Benchmark metrics: documents and reference tables in, numbers out.

Nothing here imports PyTorch or a database. Definitions are those of Matbench Discovery (July 2026), written from their
description; each function says where it follows a rule of the leaderboard that one would not expect.
"""
