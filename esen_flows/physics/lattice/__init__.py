"""Lattice dynamics from finite displacements, or their exact limit: forces, phonons, thermal conductivity.

The only importer of phonopy and phono3py, and of these in `adapter` alone. Two steps on purpose: `displaced_forces` is
all that a force field is asked; phonons and transport follow from its document without another force call.
"""
