"""Fixtures of pages: documents to show."""

from lattice_documents import conductivity_document, phonon_document

__all__ = ["conductivity_document", "phonon_document"]
