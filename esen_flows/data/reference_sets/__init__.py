"""Reference data of published benchmarks by name: where they are, fetching them, and checking them."""
