"""Where labelled structures come from: one file a format, and one that knows them all."""
