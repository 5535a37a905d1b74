"""`negexp bench`: time the phases of an epoch and the alternatives that a user could take, in one process."""

from negexp.bench.run import run_benchmarks

__all__ = ["run_benchmarks"]
