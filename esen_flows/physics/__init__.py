"""Structure + force field + protocol -> document, as plain functions that a notebook, a test and a Maker all call."""
