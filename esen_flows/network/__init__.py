"""Network families as torch modules: what a family gives (`interface`), the families, and how they sum over edges."""
