"""What commands print and write: tables, reports, files."""
