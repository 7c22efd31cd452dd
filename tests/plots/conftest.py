"""Fixtures of figures: documents to draw, and the figures that were written."""

from typing import Any

import pytest
from lattice_documents import conductivity_document, phonon_document, relax_document
from matplotlib.figure import Figure

__all__ = ["conductivity_document", "drawn", "phonon_document", "relax_document"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were written."""
    figures: list[Figure] = []
    write = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        if self not in figures:
            figures.append(self)
        write(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures
