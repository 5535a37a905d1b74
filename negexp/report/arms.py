"""Runs to arms (what differs in the seed only), and arms to comparisons (what was measured on the same queries)."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from negexp.config import decides_result, flatten
from negexp.evaluation.monitor import Monitor
from negexp.report.runs import Run

# What may differ within an arm: where things lie, what is written, how work is cut into pieces.
NO_MATTER = (
    *("seed", "data.path", "trainer.device", "trainer.threads", "trainer.tokens_per_batch"),
    *("index.block_bytes", "evaluation.block_bytes"),
)


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed only, by seed; the name says what tells them from the comparison's other arms."""

    name: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds, one a run."""
        return [run.seed for run in self.runs]

    def command(self) -> str:
        """Return a command that makes the arm's runs again."""
        overrides = [override for override in self.runs[0].result["overrides"] if not override.startswith("seed=")]
        seeds = ",".join(str(seed) for seed in dict.fromkeys(self.seeds))
        sweep = ["-m"] if "," in seeds else []
        return shlex.join(["negexp", "train", *sweep, *overrides, f"seed={seeds}"])


@dataclass(frozen=True)
class Comparison:
    """Arms on one corpus, with one handling of copies and leaks, on the same test queries."""

    title: str
    arms: tuple[Arm, ...]
    monitor: Monitor  # the headline's metric

    @property
    def runs(self) -> list[Run]:
        """Return the runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    def differing(self) -> dict[str, list[Any]]:
        """Return every key in which arms differ, with its value in each arm."""
        return {
            key: [arm.settings[key] for arm in self.arms] for key in _differing([arm.settings for arm in self.arms])
        }


def compare_what_can_be(runs: Sequence[Run]) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons, largest first, and remarks on what was kept apart or looks odd."""
    kinds: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        kinds[_kind(run)].append(run)
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    remarks = []
    if len(ordered) > 1:
        why = ", ".join(_what_differs([kind for kind, _ in ordered]))
        remarks.append(f"These runs make {len(ordered)} comparisons that are not mixed: they differ in {why}.")
    differing = _what_differs([kind for kind, _ in ordered])
    comparisons = []
    for number, (kind, members) in enumerate(ordered, 1):
        own = [f"{name}={value[:12]}" for name, value in zip(KIND, kind, strict=True) if name in differing]
        comparisons.append(_comparison(members, f"Comparison {number} ({', '.join(own)}): " if own else ""))
    return comparisons, remarks + [remark for comparison in comparisons for remark in _oddities(comparison)]


def _oddities(comparison: Comparison) -> list[str]:
    """Return what a reader should know before believing a comparison."""
    remarks = []
    for arm in comparison.arms:
        twice = [seed for seed, count in Counter(arm.seeds).items() if count > 1]
        if twice:
            listed = ", ".join(map(str, twice))
            remarks.append(f"{arm.name} has more than one run with seed {listed}; all are kept, as if seeds differed.")
    if len({run.result.get("runtime") for run in comparison.runs}) > 1:
        remarks.append("The runs are not all from one kind of machine and precision: their seconds do not compare.")
    if len({run.config.trainer.monitor for run in comparison.runs}) > 1:
        remarks.append(
            "The runs chose their best epoch by different metrics; the headline is about the most common one."
        )
    return remarks


KIND = (
    "corpus (fingerprint)",
    "data.train_overlap",
    "data.copies",
    "data.match",
    "evaluation.rerank_k",
    "test queries",
)


def _kind(run: Run) -> tuple[str, ...]:
    """Return what runs must share to be compared."""
    queries = hashlib.sha256("\n".join(run.ranks["query"].unique()).encode()).hexdigest()
    data = run.config.data
    handling = data.train_overlap, data.copies, data.match
    return run.result["data_fingerprint"], *handling, str(run.config.evaluation.rerank_k), queries


def _what_differs(kinds: list[tuple[str, ...]]) -> list[str]:
    return [name for place, name in enumerate(KIND) if len({kind[place] for kind in kinds}) > 1]


def _comparison(runs: list[Run], prefix: str) -> Comparison:
    members: dict[str, list[Run]] = defaultdict(list)
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = _settings(run)
        key = repr(own)
        members[key].append(run)
        settings[key] = own
    settings = _with_all_keys(settings)
    names = _names(list(settings.values()))
    arms = [
        Arm(name, tuple(sorted(members[key], key=lambda run: (run.seed, run.folder))), settings[key])
        for key, name in zip(settings, names, strict=True)
    ]
    data = runs[0].config.data
    title = f"{prefix}{data.name}, data.train_overlap={data.train_overlap}, data.copies={data.copies}"
    monitors = Counter(run.config.trainer.monitor for run in runs)
    monitor = Monitor.parse(monitors.most_common(1)[0][0])
    return Comparison(title, tuple(sorted(arms, key=lambda arm: arm.name)), monitor)


def _settings(run: Run) -> dict[str, Any]:
    values = flatten(asdict(run.config))
    return {key: value for key, value in values.items() if decides_result(key) and not key.startswith(NO_MATTER)}


def _with_all_keys(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give all arms the same keys, group by group; a key that a component does not have is null."""
    keys = list(dict.fromkeys(key for own in settings.values() for key in own))
    groups = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    keys.sort(key=lambda key: groups.index(key.partition(".")[0]))
    return {name: {key: own.get(key) for key in keys} for name, own in settings.items()}


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys with more than one value, names of groups first, then in the order of the configuration."""
    keys = [key for key in settings[0] if len({repr(one[key]) for one in settings}) > 1]
    return sorted(keys, key=lambda key: not key.endswith(".name"))


def _names(settings: list[dict[str, Any]]) -> list[str]:
    """Name every arm by differing keys, taken in order as long as they tell apart what the ones before did not."""
    chosen: list[str] = []
    for key in _differing(settings):
        before = len({repr([one[name] for name in chosen]) for one in settings})
        if len({repr([one[name] for name in [*chosen, key]]) for one in settings}) > before:
            chosen.append(key)
    chosen = chosen or ["sampler.name"]
    short = Counter(_short(key) for key in chosen)
    labels = {key: _short(key) if short[_short(key)] == 1 else key for key in chosen}
    # the keys of one strategy are null in the others, and say nothing there
    said = [
        [(key, one[key]) for key in chosen if not (key.startswith("sampler.") and one[key] is None)] for one in settings
    ]
    names = [" ".join(f"{labels[key]}={_text(value)}" for key, value in one) for one in said]
    if len(set(names)) < len(names):  # folders or metrics that end alike
        names = [" ".join(f"{labels[key]}={value}" for key, value in one) for one in said]
    return names


def _short(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rpartition("/")[2]  # an encoder's folder or hub id
    return str(value)
