"""Finding results and structures: filters, conditions, columns, tables."""
