"""Results outside the database: the spool and archives."""
