"""The listener that writes a run's tables into its folder."""

from __future__ import annotations

from typing import Any

from negexp.tracking.listener import Epoch, Listener, Refresh, RerankerEpoch, RunInfo
from negexp.tracking.run_folder import RunFolder


class Recorder(Listener):
    """Write metrics.csv, refreshes.csv or reranker.csv after each commit and, if enabled, a ledger for each refresh."""

    def __init__(self, folder: RunFolder, ledger: bool) -> None:
        self.folder, self.ledger = folder, ledger

    def started(self, run: RunInfo) -> None:
        """Write the tables up to the last commit, because a kill may have come before they were written."""
        if run.epochs:
            self.folder.write_metrics(run.epochs, run.refreshes)

    def refreshed(self, refresh: Refresh) -> None:
        """Write the ledger."""
        if self.ledger:
            self.folder.write_ledger(refresh.epoch, refresh.step, refresh.ledger)

    def committed(self, epoch: Epoch) -> None:
        """Write all committed rows."""
        self.folder.write_metrics(epoch.epochs, epoch.refreshes)

    def reranker_started(self, epochs: list[dict[str, Any]]) -> None:
        """Write the table of the cross-encoder up to its last commit."""
        if epochs:
            self.folder.write_reranker(epochs)

    def reranker_committed(self, epoch: RerankerEpoch) -> None:
        """Write all committed rows of the cross-encoder."""
        self.folder.write_reranker(epoch.epochs)
