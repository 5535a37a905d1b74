"""Mine negatives for other trainers, in formats of sentence-transformers and FlagEmbedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from negexp.command import Command
from negexp.config import MineConfig, completed_by_run, gives_model, load_run_config, with_run
from negexp.corpus import check_path
from negexp.errors import InputError


def check(config: MineConfig, overrides: Sequence[str]) -> None:
    """Raise `InputError` unless the output folder is free, there is one encoder, and corpus and cross-encoder exist."""
    from negexp.tracking.output import check_output_folder

    check_output_folder(Path(config.output).expanduser())
    if config.run is not None:
        config = with_run(config, load_run_config(Path(config.run).expanduser() / "config.yaml"), overrides)
    elif not gives_model(overrides):
        raise InputError(
            "run=null: nothing says whose embeddings are searched; give run=DIR, or an encoder, as in model=minilm or "
            "model.pretrained=FOLDER"
        )
    check_path(config.data)
    if config.rescore is not None and not (Path(config.rescore).expanduser() / "config.json").is_file():
        raise InputError(
            f"rescore={config.rescore}: has no config.json; give the folder of a cross-encoder, with a tokenizer and "
            "model.safetensors"
        )


def run(config: MineConfig, folder: Path, overrides: list[str]) -> None:
    """Write negatives, report and ledger into `output`, and print what was mined."""
    from negexp.mine import run as mine

    mine.run(config, overrides)


COMMAND = Command(
    schema=MineConfig,
    run=run,
    check=check,
    complete=completed_by_run,
    completed=("data",),
    usage=(
        "negexp mine run=DIR output=DIR [format=triplet] [file=jsonl] [sampler=...] [mining=...]",
        "negexp mine model=minilm data=pairs data.path=FILE output=DIR format=n-tuple-scores [rescore=FOLDER]",
    ),
    paths=("run", "output", "rescore", "data.path", "model.pretrained"),
    sweeps=False,
)
