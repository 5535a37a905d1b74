"""Group runs into arms (runs that differ in the seed only), and arms into comparisons (arms with the same queries)."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from negexp.config import TrainConfig, decides_result, flatten
from negexp.evaluation.monitor import Monitor
from negexp.report.runs import Run

# Keys that may differ within an arm: they say where files are, or how the work is cut into pieces.
MAY_DIFFER_WITHIN_ARM = (
    *("seed", "data.path", "trainer.device", "trainer.threads", "trainer.tokens_per_batch"),
    *("index.block_bytes", "evaluation.block_bytes"),
)


@dataclass(frozen=True)
class Arm:
    """Runs that differ in the seed only, sorted by seed. The name lists the settings that identify the arm."""

    name: str
    runs: tuple[Run, ...]
    settings: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """Return the seed of each run."""
        return [run.seed for run in self.runs]

    def command(self) -> str:
        """Return a command that repeats the arm's runs."""
        overrides = [override for override in self.runs[0].result.overrides if not override.startswith("seed=")]
        seeds = ",".join(str(seed) for seed in dict.fromkeys(self.seeds))
        sweep = ["-m"] if "," in seeds else []
        return shlex.join(["negexp", "train", *sweep, *overrides, f"seed={seeds}"])


@dataclass(frozen=True)
class Comparison:
    """Arms that used the same corpus, the same handling of copies and leaks, and the same test queries."""

    title: str
    arms: tuple[Arm, ...]
    monitor: Monitor  # the metric of the headline

    @property
    def runs(self) -> list[Run]:
        """Return the runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    def differing(self) -> dict[str, list[Any]]:
        """Return each key whose value differs between arms, with its value in each arm."""
        settings = [arm.settings for arm in self.arms]
        return {key: [one[key] for one in settings] for key in _keys_that_differ(settings)}


def group_into_comparisons(runs: Sequence[Run]) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons, largest first, and remarks: why runs are kept apart, and what to be careful about."""
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[_shared_values(run)].append(run)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    separating = _keys_that_keep_apart([shared for shared, _ in ordered])
    remarks = []
    if len(ordered) > 1:
        remarks.append(
            f"The runs form {len(ordered)} separate comparisons, because they differ in {', '.join(separating)}."
        )
    comparisons = []
    for number, (shared, members) in enumerate(ordered, 1):
        named = zip(SHARED_BY_ALL_RUNS, shared, strict=True)
        own = [f"{name}={value[:12]}" for name, value in named if name in separating]
        comparisons.append(_build_comparison(members, f"Comparison {number} ({', '.join(own)}): " if own else ""))
    return comparisons, remarks + [remark for comparison in comparisons for remark in _warnings(comparison)]


def _warnings(comparison: Comparison) -> list[str]:
    """Return remarks on properties that weaken a comparison."""
    remarks = []
    for arm in comparison.arms:
        repeated = [seed for seed, count in Counter(arm.seeds).items() if count > 1]
        if repeated:
            listed = ", ".join(map(str, repeated))
            remarks.append(
                f"{arm.name} has more than one run with seed {listed}. All of them count as different seeds."
            )
    if len({run.result.runtime for run in comparison.runs}) > 1:
        remarks.append("The runs used different devices, thread counts or precisions, so do not compare their seconds.")
    if len({run.config.trainer.monitor for run in comparison.runs}) > 1:
        remarks.append("The runs chose their best epoch by different metrics. The headline uses the most common one.")
    return remarks


# All runs of a comparison share the values of these.
SHARED_BY_ALL_RUNS = (
    "corpus (fingerprint)",
    "data.train_overlap",
    "data.copies",
    "data.match",
    "evaluation.rerank_k",
    "test queries",
)


def _shared_values(run: Run) -> tuple[str, ...]:
    """Return the values of `SHARED_BY_ALL_RUNS` in a run."""
    queries = hashlib.sha256("\n".join(run.ranks["query"].unique()).encode()).hexdigest()
    data = run.config.data
    handling = data.train_overlap, data.copies, data.match
    return run.result.data_fingerprint, *handling, str(run.config.evaluation.rerank_k), queries


def _keys_that_keep_apart(shared: list[tuple[str, ...]]) -> list[str]:
    """Return the names in `SHARED_BY_ALL_RUNS` whose values differ."""
    return [name for place, name in enumerate(SHARED_BY_ALL_RUNS) if len({values[place] for values in shared}) > 1]


def _build_comparison(runs: list[Run], prefix: str) -> Comparison:
    members: dict[str, list[Run]] = defaultdict(list)
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = _arm_settings(run.config)
        key = repr(own)
        members[key].append(run)
        settings[key] = own
    settings = _with_all_keys(settings)
    names = _arm_names(list(settings.values()))
    arms = [
        Arm(name, tuple(sorted(members[key], key=lambda run: (run.seed, run.folder))), settings[key])
        for key, name in zip(settings, names, strict=True)
    ]
    data = runs[0].config.data
    title = f"{prefix}{data.name}, data.train_overlap={data.train_overlap}, data.copies={data.copies}"
    monitors = Counter(run.config.trainer.monitor for run in runs)
    monitor = Monitor.parse(monitors.most_common(1)[0][0])
    return Comparison(title, tuple(sorted(arms, key=lambda arm: arm.name)), monitor)


def name_arms(configs: Sequence[TrainConfig]) -> list[str]:
    """Return the name of the arm of each run, finished or not: the settings that distinguish it from other arms."""
    settings = {repr(own): own for own in map(_arm_settings, configs)}
    names = dict(zip(settings, _arm_names(list(_with_all_keys(settings).values())), strict=True))
    return [names[repr(_arm_settings(config))] for config in configs]


def _arm_settings(config: TrainConfig) -> dict[str, Any]:
    values = flatten(asdict(config))
    deciding = [key for key in values if decides_result(key) and not key.startswith(MAY_DIFFER_WITHIN_ARM)]
    return {key: values[key] for key in deciding}


def _with_all_keys(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give all arms the same keys, ordered by group. The value is null where a component does not have the key."""
    keys = list(dict.fromkeys(key for own in settings.values() for key in own))
    groups = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    keys.sort(key=lambda key: groups.index(key.partition(".")[0]))
    return {name: {key: own.get(key) for key in keys} for name, own in settings.items()}


def _keys_that_differ(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys with more than one value: component names first, then the order of the configuration."""
    keys = [key for key in settings[0] if len({repr(one[key]) for one in settings}) > 1]
    return sorted(keys, key=lambda key: not key.endswith(".name"))


def _arm_names(settings: list[dict[str, Any]]) -> list[str]:
    """Name every arm by differing keys. A key is used when it separates arms that the earlier keys do not."""
    chosen: list[str] = []
    for key in _keys_that_differ(settings):
        before = len({repr([one[name] for name in chosen]) for one in settings})
        if len({repr([one[name] for name in [*chosen, key]]) for one in settings}) > before:
            chosen.append(key)
    chosen = chosen or ["sampler.name"]
    short = Counter(_short_key(key) for key in chosen)
    labels = {key: _short_key(key) if short[_short_key(key)] == 1 else key for key in chosen}
    # a key of one strategy is null in the other strategies, where it says nothing
    used = [
        [(key, one[key]) for key in chosen if not (key.startswith("sampler.") and one[key] is None)] for one in settings
    ]
    names = [" ".join(f"{labels[key]}={_short_value(value)}" for key, value in one) for one in used]
    if len(set(names)) < len(names):  # values whose short forms are equal
        names = [" ".join(f"{labels[key]}={value}" for key, value in one) for one in used]
    return names


def _short_key(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]


def _short_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rpartition("/")[2]  # an encoder's folder or hub id
    return str(value)
