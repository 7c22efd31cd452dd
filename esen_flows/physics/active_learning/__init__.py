"""Training whose data grow from the dynamics of the force field that is trained."""
