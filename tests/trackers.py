"""What the tests of trackers compare: the series of a finished run, as its own files have them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

Series = dict[str, list[tuple[int, float]]]  # name -> (x, value) of each point, in order


def expected_series(run: Path) -> Series:
    """Return the series of metrics.csv over the epochs, and the result's values at the best epoch."""
    table, result = pd.read_csv(run / "metrics.csv"), json.loads((run / "result.json").read_text())
    found: Series = {
        str(name): [(int(epoch), float(one)) for epoch, one in zip(table["epoch"], values, strict=True) if one == one]
        for name, values in table.items()
    }
    best = result["best_epoch"]
    for name in ("best_epoch", "best_value", "seconds"):
        found[f"result/{name}"] = [(best, float(result[name]))]
    splits = {"validation": result["validation"], "test": result["test"]}
    for split, metrics in (splits | {f"untrained/{one}": value for one, value in result["untrained"].items()}).items():
        for protocol, stages in metrics.items():
            for stage, tasks in stages.items():
                for task, values in tasks.items():
                    for metric in sorted(values.keys() - {"candidates", "queries"}):
                        found[f"result/{split}/{protocol}/{stage}/{task}/{metric}"] = [(best, values[metric])]
    return {name: points for name, points in found.items() if points}


def without_batches(series: Series) -> Series:
    """Return the series but those of the batches, which the run's files do not have."""
    return {name: points for name, points in series.items() if name.partition("/")[0] != "batch"}


def assert_batches(series: Series, run: Path, batches: int) -> None:
    """Check the losses of the batches: each is there once, and their means are those of metrics.csv.

    The run has `batches` batches of equal sizes in an epoch.
    """
    table = pd.read_csv(run / "metrics.csv")
    for column in [name for name in table if name == "loss" or str(name).startswith("loss_")]:
        points = series[f"batch/{column}"]
        assert [number for number, _ in points] == list(range(batches * len(table)))
        values = pd.Series([value for _, value in points])
        means = values.groupby(values.index // batches).mean()
        pd.testing.assert_series_equal(means, table[column], check_names=False, atol=1e-6)


def assert_figures(figures: Mapping[str, bytes]) -> None:
    """Check that these are the two figures of a run: PNG files of a sensible size that show something."""
    assert figures.keys() == {"figures/learning", "figures/negatives"}
    for png in figures.values():
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            assert 700 < image.width < 2000
            assert 400 < image.height < 1200
            assert 0.01 < (np.asarray(image.convert("L")) < 128).mean() < 0.5  # ink on paper
