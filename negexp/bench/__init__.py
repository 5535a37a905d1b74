"""`negexp bench`: the phases of an epoch beside what a user would take instead, in one process and run."""

from negexp.bench.run import run_benchmarks

__all__ = ["run_benchmarks"]
