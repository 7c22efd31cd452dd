"""Three-phonon linewidths from arrays: force constants, a grid with its phonons, and nothing of phono3py.

The formulas are those of Togo, Chaput, Tanaka, Phys. Rev. B 91, 094306 (2015); the order of the operations is our own.
What depends on one phonon is done once: the third-order force constants are merged into one tensor for all three
choices of the atom at the origin (`vertices`), transformed to each irreducible q-point q0 and to the modes there, and
then to the grid, one axis at a time. What is left for each pair (q1, q2) with q0 + q1 + q2 = G are two small
contractions and the weights of the tetrahedron method (`tetrahedra`), which `kernel.cpp` does. `collisions` is the same
in numpy.
"""
