"""Force fields of other packages, one file each."""
