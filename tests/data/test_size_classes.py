"""The order of structures in which those of similar size follow one another."""

from ase.build import bulk, molecule

from esen_flows.data.neighbors import pair_table
from esen_flows.data.size_classes import CLASS_FACTOR, by_size_class


def test_atoms_first_then_classes_of_edges_with_the_largest_first():
    lattices = (6.6, 4.2, 5.7, 4.3, 6.5)
    structures = [bulk("NaCl", "rocksalt", a=a, cubic=True) for a in lattices]
    structures += [bulk("NaCl", "rocksalt", a=5.7), molecule("H2O")]
    order = by_size_class(structures, 6.0)
    assert sorted(order) == list(range(7))
    assert [len(structures[index]) for index in order] == [2, 3, 8, 8, 8, 8, 8]
    edges = [len(pair_table(structures[index], 6.0).source) for index in order[2:]]
    # A compiled array is never much longer than needed, and all but the first one or two structures fit.
    assert all(max(edges[: i + 1]) <= CLASS_FACTOR * each for i, each in enumerate(edges))
    rises = sum(each > max(edges[:i], default=0) for i, each in enumerate(edges))
    assert rises == 3  # of 5


def test_without_a_cutoff_the_order_is_that_of_six_angstrom():
    structures = [bulk("Cu", a=a, cubic=True) for a in (4.4, 3.0, 3.6)]
    assert by_size_class(structures, None) == by_size_class(structures, 6.0)
