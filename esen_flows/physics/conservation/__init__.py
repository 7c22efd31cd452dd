"""Measurements of a force field itself: conservation, smoothness and symmetry, as pure functions of the contract.

`esen_flows.testing.check_force_field` asserts with these functions what an audit measures with them.
"""
