"""Structures: reading files, identity, checks, conversion."""
