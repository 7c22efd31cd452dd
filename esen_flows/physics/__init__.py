"""Physical properties as plain functions: structure, force field and protocol in, document out."""
