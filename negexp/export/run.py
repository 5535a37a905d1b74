"""`negexp export`: read a finished run, write its encoder and its model card into a new folder."""

from __future__ import annotations

from pathlib import Path

from transformers import PROCESSOR_MAPPING, PreTrainedConfig

from negexp.errors import InputError
from negexp.export.card import model_card
from negexp.export.folder import write_folder
from negexp.model import quiet_transformers
from negexp.report.runs import read_runs
from negexp.tracking.files import new_folder
from negexp.training import TrainedRun


def export_run(path: Path, output: Path) -> str:
    """Write the encoder of the run's best epoch into `output`; return what was written and how to load it.

    Raises
    ------
    InputError
        When the run is unfinished or damaged, or `output` cannot be written. Then nothing is left behind.
    """
    quiet_transformers()
    runs, skipped = read_runs([path])
    if not runs:
        raise InputError(f"run={path}: cannot be exported ({skipped[0].reason})")
    run, trained = runs[0], TrainedRun.read(path)
    epoch = int(trained.commit.value("best_epoch"))
    built = trained.model(fused="off")  # as transformers computes
    refuse_processor(built.encoder_config, path)
    with new_folder(output.resolve()) as temporary:
        write_folder(built, run.config.model.max_length, temporary)
        (temporary / "README.md").write_text(model_card(run, epoch), encoding="utf-8")
    lines = [f"encoder of epoch {epoch} of {path} in {output}", f'load it with SentenceTransformer("{output}")']
    if not built.model.shared or built.model.query_head is not None:
        lines.append("points as queries: encode_query(texts); counters and other candidates: encode_document(texts)")
    if run.config.model.reranker == "cross":
        lines.append("left out: the cross-encoder, which sentence-transformers loads as another kind of model")
    return "\n".join(lines)


def refuse_processor(encoder_config: PreTrainedConfig, path: Path) -> None:
    """Raise `InputError` for an architecture that sentence-transformers loads with a processor, not a tokenizer."""
    if type(encoder_config) in PROCESSOR_MAPPING:
        raise InputError(
            f"run={path}: sentence-transformers loads {encoder_config.model_type} with a processor of images or pages, "
            "which a run does not have, so the folder would not load; train another architecture"
        )
