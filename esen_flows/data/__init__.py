"""Structures as graphs, and datasets; never the database."""
