"""What a run writes: its folder, the metrics, the negative ledger, the result."""

from negexp.tracking.ledger import build_ledger
from negexp.tracking.run_folder import RunFolder, write_evaluation

__all__ = ["RunFolder", "build_ledger", "write_evaluation"]
