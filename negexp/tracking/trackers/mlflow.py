"""MLflow: a run of an experiment, found again by a tag. Its store keeps one of two equal points."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from negexp.components import option
from negexp.errors import InputError
from negexp.tracking.tracker import Points, ProjectOptions, TrackedRun, Tracker, group_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("negexp")

MOST_METRICS, MOST_PARAMETERS, LONGEST_PARAMETER = 1000, 100, 6000  # in one request; characters
Item = TypeVar("Item")


@dataclass
class MlflowOptions(ProjectOptions):
    """The keys of the tracker `mlflow`."""

    uri: str | None = option("the tracking server or store; null: MLFLOW_TRACKING_URI, or MLflow's own default")

    def check(self) -> None:
        """Raise `InputError` when the address holds a password."""
        address = urlsplit(self.uri or "")
        if address.password is not None:
            raise InputError(
                f"uri={address.scheme}://...@{address.hostname}: holds a password, which would be saved with the run; "
                "give the address without it, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )


class Mlflow(Tracker):
    """Tells a run of the experiment `project`; the tag `negexp.run` identifies it, the tag `negexp.group` groups."""

    Options = MlflowOptions
    options: MlflowOptions

    def open(self, run: TrackedRun) -> int:
        """Find the run by its tag, or create it with its parameters; return the number of epochs that it has."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
        from mlflow import MlflowClient
        from mlflow.entities import Param

        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        self.client = MlflowClient(self.options.uri)
        experiment = _experiment(self.client, self.options.project)
        found = self.client.search_runs([experiment], filter_string=f"tags.`negexp.run` = '{run.id}'")
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            tags = {"negexp.run": run.id, "negexp.group": group_of(run, self.options)}
            self.id = self.client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        known = found[0].data.params if found else {}  # a parameter cannot be changed
        new = [Param(key, str(one)[:LONGEST_PARAMETER]) for key, one in run.parameters.items() if key not in known]
        for part in _parts(new, MOST_PARAMETERS):
            self.client.log_batch(self.id, params=part)
        log.info(f"tracker mlflow: run {self.id} of experiment {self.options.project} in {self.client.tracking_uri}")
        return int(found[0].data.metrics.get("epoch", -1)) + 1 if found else 0

    def log(self, points: Points) -> None:
        """Tell of the batches, then of all else; the epoch's number is last, and says that the epoch is complete."""
        from mlflow.entities import Metric

        time = round(1000 * points.time)
        batches = [(name, value, number) for number, losses in points.batches for name, value in losses.items()]
        values = [(name, value, points.epoch) for name, value in points.values.items()]
        values.sort(key=lambda one: one[0] == "epoch")  # the last one
        for part in (*_parts(batches, MOST_METRICS), *_parts(values, MOST_METRICS)):
            metrics = [Metric(metric_name(name), value, time, step) for name, value, step in part]
            self.client.log_batch(self.id, metrics=metrics)
        with TemporaryDirectory() as folder:
            for name, png in points.figures.items():  # artifacts; one that is there already is replaced
                file = Path(folder, f"{name}.png")
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(png)
                self.client.log_artifact(self.id, str(file), file.parent.name)

    def close(self, finished: bool) -> None:
        """Set the state of the run."""
        self.client.set_terminated(self.id, status="FINISHED" if finished else "KILLED")


def metric_name(name: str) -> str:
    """Return a name that MLflow accepts for a metric.

    >>> metric_name("validation/clean/retrieval/epa/accuracy@1")
    'validation/clean/retrieval/epa/accuracy_at_1'
    """
    return re.sub(r"[^\w.\-/ ]", "_", name.replace("@", "_at_"))


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is created if there is none."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another job of the sweep was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def _parts(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
