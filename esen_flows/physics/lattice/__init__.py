"""Lattice dynamics from finite displacements, or their exact limit: forces, phonons, thermal conductivity.

There are two steps: `displaced_forces` makes all force calls, and phonons and transport follow from its document
without another one. Only this folder imports phonopy and phono3py: `adapter` makes their objects, `harmonic` and
`anharmonic` compute with them, and `force_sets` and `born` read their files.
"""
