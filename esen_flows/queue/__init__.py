"""FireWorks and workers: submission, the worker, recovery of lost runs, allocations, launchers."""
