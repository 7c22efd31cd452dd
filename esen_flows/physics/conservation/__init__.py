"""Whether a force field conserves energy."""
