"""The output of a run: its folder, metrics, negative ledgers and result, and the listeners that receive events."""

from negexp.tracking.ledger import build_ledger
from negexp.tracking.run_folder import RunFolder, write_evaluation

__all__ = ["RunFolder", "build_ledger", "write_evaluation"]
