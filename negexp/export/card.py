"""The model card of an exported run: where the model comes from, what it reached, how to use it.

The run's folder may come from a stranger. Its texts are shown on one line each or in a block of code, without HTML.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from negexp import __version__
from negexp.export.request import is_hub_name
from negexp.report.arms import group_into_comparisons
from negexp.report.compare import QUERY_SUBSETS, CellKey, CellValue, Numbers, compute
from negexp.report.runs import Run

URL = "https://github.com/negexp/negexp"
METRICS = ("accuracy@1", "accuracy@10", "mrr", "ndcg@10")
SECTIONS = ("sampler", "batch", "loss")
TRAINER = ("epochs", "batch_size", "lr", "head_lr", "average")
ARGUANA = """@inproceedings{wachsmuth2018retrieval,
  title = {Retrieval of the Best Counterargument without Prior Topic Knowledge},
  author = {Wachsmuth, Henning and Syed, Shahbaz and Stein, Benno},
  booktitle = {Proceedings of ACL 2018},
  year = {2018}
}
"""


def model_card(run: Run, epoch: int) -> str:
    """Return the README.md of an exported run: `epoch` is the one whose weights it has."""
    parts = [_front_matter(run), _introduction(run, epoch), _usage(run), _training(run), _results(run), _citation(run)]
    return "\n".join(parts)


def _front_matter(run: Run) -> str:
    base = _base_on_hub(run)
    keys: dict[str, Any] = {"library_name": "sentence-transformers", "pipeline_tag": "sentence-similarity"}
    keys["tags"] = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense-retrieval", "negexp"]
    if base is not None:
        keys["base_model"] = base
    return f"---\n{yaml.safe_dump(keys, sort_keys=False)}---\n"


def _base_on_hub(run: Run) -> str | None:
    """Return the pretrained encoder if its name is one of the hub, and of no folder here."""
    name = run.config.model.pretrained
    return name if name is not None and is_hub_name(name) and not Path(name).is_dir() else None


def _introduction(run: Run, epoch: int) -> str:
    model = run.config.model
    base = "a small random BERT" if model.pretrained is None else f"`{_line(without_folders(model.pretrained))}`"
    revision = "" if model.revision is None else f", revision `{_line(model.revision)}`"
    size = "" if model.retrieval_dim is None else f", a linear head to {model.retrieval_dim} dimensions"
    kinds = {"cls": "the first token's state", "mean": "the mean of all tokens' states", "pooler": "the pooled output"}
    towers = (
        "one encoder for points and counters" if model.shared_encoder else "an encoder each for points and counters"
    )
    head = "" if model.query_head == "none" else f", a {model.query_head} head on queries alone"
    return (
        f"# {_line(run.config.name)}\n\n"
        "A dense retriever: it embeds a point (the query) and finds its counter-argument among candidates. It was "
        f"trained by [negexp]({URL}).\n\n"
        f"* base model: {base}{revision}\n"
        f"* architecture: {towers}, {kinds[model.pooling]}{size}{head}, "
        f"{'normalised' if model.normalize else 'not normalised'}\n"
        f"* similarity: {'cosine' if model.normalize else 'minus the Euclidean distance'}\n"
        f"* longest text: {model.max_length} tokens; the rest is cut\n"
        f"* weights: epoch {epoch}, the best on validation ({_line(str(run.config.trainer.monitor))}), from seed "
        f"{run.seed}\n"
    )


def _usage(run: Run) -> str:
    model = run.config.model
    split = model.query_head != "none" or not model.shared_encoder
    note = "\nPoints and candidates are embedded differently: `encode` alone embeds candidates.\n" if split else ""
    return (
        "## Use it\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("FOLDER_OR_HUB_NAME")\n'
        'points = model.encode_query(["School uniforms should be mandatory."])\n'
        'counters = model.encode_document(["Uniforms suppress individuality."])\n'
        f"print(model.similarity(points, counters))\n```\n{note}"
    )


def _training(run: Run) -> str:
    values = asdict(run.config)
    shown = {name: values[name] for name in SECTIONS} | {
        "trainer": {key: values["trainer"][key] for key in TRAINER if key in values["trainer"]}
    }
    command = shlex.join(["negexp", "train", *map(without_folders, run.result.overrides)])
    strategy, loss = _named(shown["sampler"]), _named(shown["loss"])
    versions = ", ".join(f"{_line(name)} {_line(value)}" for name, value in run.result.versions.items())
    return (
        f"## Data\n\n{_line(run.result.corpus_summary)}\n\n## Training\n\n"
        f"Strategy of negatives: {strategy}. Loss: {loss}. All keys of these parts:\n\n"
        f"{_block(yaml.safe_dump(shown, sort_keys=False), 'yaml')}\n"
        f"The command, with folders shortened to their last name:\n\n{_block(command, 'bash')}\n"
        f"Versions: {versions}. Exported by negexp {__version__}.\n"
    )


def _results(run: Run) -> str:
    comparisons, _ = group_into_comparisons([run])
    numbers = compute(comparisons[0])
    keys = {key: value for key, value in numbers.by_cell.items() if key.stage == "retrieval"}
    alone = all(np.isnan(value.low) for value in keys.values())
    intervals = "; one group of debates gives no intervals" if alone else ", with 95 % intervals over groups of debates"
    lines = ["## Results on the test split\n"]
    lines.append(
        f"In %{intervals}. A query is a point, its counters are the right answers. The tasks differ in "
        f"their candidates ([definitions]({URL}/blob/main/negexp/evaluation/README.md)). Retrieval by the embeddings "
        "alone, without re-ranking.\n"
    )
    tables: dict[str, str] = {}  # the table of each subset and protocol -> its title; equal tables are shown once
    for protocol, subset in dict.fromkeys((key.protocol, key.queries) for key in keys):
        table = _table(numbers, keys, protocol, subset)
        tables[table] = f"{tables[table]} and `{protocol}`" if table in tables else f"`{protocol}`"
    lines += [f"Protocol {title}, {table}" for table, title in tables.items()]
    return "\n".join(lines)


def _table(numbers: Numbers, keys: dict[CellKey, CellValue], protocol: str, subset: str) -> str:
    rows = {key: value for key, value in keys.items() if (key.protocol, key.queries) == (protocol, subset)}
    count = int(numbers.arms.query("protocol == @protocol and queries == @subset")["query_count"].iloc[0])
    lines = [f"{QUERY_SUBSETS[subset]} ({count}):\n"]
    lines.append("| task | " + " | ".join(METRICS) + " |")
    lines.append("| --- |" + " --- |" * len(METRICS))
    for task in dict.fromkeys(key.task for key in rows):
        cells = [_cell(next(v for k, v in rows.items() if (k.task, k.metric) == (task, metric))) for metric in METRICS]
        lines.append(f"| {_line(task)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(value: CellValue) -> str:
    interval = "" if np.isnan(value.low) else f" [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value.mean:.1f}{interval}"


def _citation(run: Run) -> str:
    own = (
        f"@software{{negexp,\n  title = {{negexp: which negatives should a dense retriever see, and when?}},\n"
        f"  url = {{{URL}}},\n  version = {{{__version__}}}\n}}\n"
    )
    texts = [own] + [ARGUANA] * (run.config.data.name == "arguana")
    return "## Citation\n\n" + _block("\n".join(texts), "bibtex")


def _named(section: Any) -> str:
    """Return the name of a component, with those of the parts that it uses."""
    name = _line(str(section["name"]))
    parts = [_line(str(value["name"])) for value in section.values() if isinstance(value, dict) and "name" in value]
    return f"`{name}`" + (f" ({', '.join(parts)})" if parts else "")


def without_folders(text: str) -> str:
    """Return a key and its value with an absolute path, or one of a home, shortened to its last name.

    >>> without_folders("data.path=/home/ada/corpora/pairs.csv"), without_folders("sampler=hard")
    ('data.path=pairs.csv', 'sampler=hard')
    """
    key, equals, value = text.rpartition("=")
    bare = value.strip("'\"")
    return f"{key}{equals}{Path(bare).name}" if bare.startswith(("/", "~")) else text


def _line(text: str) -> str:
    """Return a text on one line, without HTML and without marks of code."""
    return " ".join(text.split()).replace("`", "'").replace("<", "&lt;").replace("|", "\\|")


def _block(text: str, language: str) -> str:
    """Return a block of code, which the text cannot end."""
    return f"```{language}\n{text.replace('```', chr(39) * 3).rstrip()}\n```\n"
