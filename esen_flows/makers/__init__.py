"""jobflow Makers and the bodies of their jobs. Import a Maker from its own module; nothing heavy loads here."""
