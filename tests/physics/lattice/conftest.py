"""Fixtures of lattice dynamics: a document with conductivities."""

from lattice_documents import conductivity_document

__all__ = ["conductivity_document"]
