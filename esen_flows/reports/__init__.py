"""Reports as HTML pages that need no network: their content is collected from documents, and rendered in one place."""
