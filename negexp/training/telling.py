"""Tell trackers of a run that is finished already: a kill, a failure, or a tracker that was chosen later."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from negexp.config import TrainConfig, flatten
from negexp.errors import InputError
from negexp.tracking import RunFolder
from negexp.tracking.guarded import build_trackers
from negexp.tracking.listener import RunInfo
from negexp.training.checkpoint import CheckpointStore

log = logging.getLogger("negexp")


def tell_finished(config: TrainConfig, folder: RunFolder, names: Sequence[str], result: Mapping[str, Any]) -> None:
    """Tell the trackers of these names of the run and its result. Damaged or removed commits are a warning."""
    try:
        state = CheckpointStore(folder.path, config.checkpoint.keep).commit("last").state
        reranker = []
        if config.model.reranker == "cross":
            commit = CheckpointStore(folder.path, config.checkpoint.keep, folder.reranker.name).commit("last")
            reranker = commit.value("history")
    except InputError as error:
        log.warning(f"trackers {', '.join(names)}: cannot be told of this run ({error})")
        return
    epochs, refreshes = state["history"], state.get("refreshes", [])
    run = RunInfo(folder.path, flatten(asdict(config)), epochs, refreshes, result["untrained"], 0.0)
    listeners = build_trackers(config.tracker, folder, names)
    for listener in listeners:
        listener.started(run)
    for listener in listeners:
        listener.reranker_started(reranker)
    for listener in listeners:
        listener.finished(result)
    log.info(f"told of this run: {', '.join(names)}")
