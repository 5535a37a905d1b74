"""`negexp mine`: embed, index and sample once, as a refresh of training does, and write what other trainers read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from negexp.components import flatten
from negexp.config import MineConfig, with_run
from negexp.corpus import Corpus, load_corpus
from negexp.embedding import TextEncoder
from negexp.errors import InputError
from negexp.evaluation.monitor import Monitor
from negexp.mine.figure import draw_distances
from negexp.mine.formats import FILES, Row, rows_of
from negexp.mine.negatives import Scores, mined_pairs
from negexp.mine.report import Mining, numbers_of, report_text, summary
from negexp.model import BuiltModel, load_sequence_classifier, quiet_transformers
from negexp.pair_tokens import PairCache, PairReader
from negexp.runtime import Runtime, choose_runtime, explain_out_of_memory, reproducible
from negexp.tokens import tokenize_corpus
from negexp.tracking.files import new_folder
from negexp.tracking.run_folder import versions
from negexp.training import TrainedRun, model_of
from negexp.training.clock import PhaseClock
from negexp.training.refresh import Moment, Refresher

log = logging.getLogger("negexp")

NOT_RECORDED = ("output", "progress")  # keys that change no byte of the other files


def run(config: MineConfig, overrides: Sequence[str]) -> None:
    """Mine, write the folder `output`, and print what was mined."""
    quiet_transformers()
    trained = None if config.run is None else TrainedRun.read(Path(config.run))
    config = config if trained is None else with_run(config, trained.config, overrides)
    runtime = choose_runtime(config.device, config.precision or "float32", config.tokens_per_batch, key="")
    corpus = load_corpus(config.data, needed=[config.split])
    log.info(corpus.summary)
    with reproducible(runtime, deterministic=True), explain_out_of_memory("tokens_per_batch or model.max_length"):
        built = model_of(config, corpus, trained)
        mining = mine(config, corpus, built, runtime, moment_of(config, trained))
    pairs = mined_pairs(corpus.texts, mining.round.arguments, mining.negatives, mining.scores)
    rows = rows_of(config.format, pairs, config.sampler.num_negatives)
    if not rows:
        raise InputError(
            f"format={config.format}: no pair has all {config.sampler.num_negatives} negatives; lower "
            "sampler.num_negatives, widen the keys of sampler.mining, or use format=triplet"
        )
    numbers = numbers_of(mining, len(rows))
    written = _write(config, corpus, mining, rows, numbers)
    log.info("\n".join(["", *summary(numbers), f"files in {config.output}: {', '.join(written)}"]))


def moment_of(config: MineConfig, trained: TrainedRun | None) -> Moment:
    """Return when to refresh: in the given epoch, or after the epochs that the run's weights were trained for."""
    if trained is None:
        return Moment(config.epoch or 0)
    history, monitor = trained.commit.value("history"), Monitor.parse(trained.config.trainer.monitor)
    epoch = len(history) if config.epoch is None else config.epoch
    return Moment(epoch, validation=[monitor.in_row(row) for row in history])


def mine(config: MineConfig, corpus: Corpus, built: BuiltModel, runtime: Runtime, moment: Moment) -> Mining:
    """Return the negatives of the pairs of `config.split`, by a refresh as in training."""
    refresher = Refresher(config, corpus, runtime, PhaseClock(runtime), config.split)
    if config.rescore is not None:
        refresher.rescored = PairCache(_cross_encoder(config, corpus.texts, runtime))
    tokens = tokenize_corpus(corpus, built.tokenizer, config.model.max_length, [config.split])
    encoder = TextEncoder(built.model.to(runtime.device), tokens, runtime, config.progress)
    embeddings = encoder.embed(corpus[config.split].texts(), config.split, corpus[config.split].point)
    round_ = refresher.round(moment, embeddings)
    negatives, statistics, ledger = refresher.sample(round_, moment, None)
    recall = statistics.get("index_recall")
    return Mining(round_, refresher.sampler, negatives, ledger, Scores.of(round_, negatives), recall)


def _cross_encoder(config: MineConfig, texts: Sequence[str], runtime: Runtime) -> PairReader:
    folder = Path(str(config.rescore)).expanduser()
    model, tokenizer, max_length = load_sequence_classifier(folder, f"rescore={config.rescore}")
    return PairReader(model.to(runtime.device), texts, tokenizer, max_length, runtime, config.progress)


def _write(config: MineConfig, corpus: Corpus, mining: Mining, rows: list[Row], numbers: dict[str, Any]) -> list[str]:
    """Write all files beside `output`, then rename their folder; return their names."""
    values = {key: value for key, value in flatten(asdict(config)).items() if key not in NOT_RECORDED}
    record = {"mined": numbers, "config": values, "data": corpus.contents, "versions": versions()}
    ledger = io.BytesIO()
    mining.ledger.to_parquet(ledger, index=False)
    files = {
        f"negatives.{config.file}": FILES[config.file](rows),
        "report.md": report_text(numbers, _describe(config), corpus.summary).encode(),
        "distances.png": draw_distances(mining.round.space.positive_distance, mining.ledger),
        "report.json": (json.dumps(record, indent=2, allow_nan=False) + "\n").encode(),
        "ledger.parquet": ledger.getvalue(),
    }
    with new_folder(Path(config.output).expanduser().resolve()) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
    return list(files)


def _describe(config: MineConfig) -> str:
    """Return encoder and strategy in words."""
    encoder = f"run {Path(config.run).name}" if config.run else f"encoder {config.model.pretrained or 'tiny, random'}"
    scores = "" if config.rescore is None else f", scores by the cross-encoder {Path(config.rescore).name}"
    source = "" if config.sampler.source == "embeddings" else f" by {config.sampler.source}"
    return (
        f"Negatives of the {config.split} pairs, format {config.format}, by {encoder}: sampler "
        f"{config.sampler.name}{source}, mining {config.sampler.mining.name}{scores}"
    )
