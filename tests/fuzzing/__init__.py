"""Mutated files through every door at which foreign files come in; see `tests.fuzz_doors`."""
