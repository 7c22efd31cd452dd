"""Compiled kernels for CPUs; `native` compiles them, and without a compiler nothing of this folder is used."""
