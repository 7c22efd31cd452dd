"""Verifying and cleaning the database."""
