"""The data, encoder files, versions and device of a run, and whether they allow the run to continue."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from negexp.config import DataConfig
from negexp.corpus import Corpus, Split, load_corpus
from negexp.corpus.match import identities
from negexp.errors import InputError
from negexp.runtime import Runtime
from negexp.tracking import RunFolder
from negexp.tracking.files import sha256
from negexp.tracking.reading import own_file
from negexp.tracking.resume import refuse_other_data
from negexp.tracking.run_folder import versions
from negexp.training.checkpoint import Commit

log = logging.getLogger("negexp")


@dataclass(frozen=True)
class Provenance:
    """The inputs and the environment of a run.

    data: `Corpus.contents`. environment: versions and device of the current process. earlier_environments: those of
    earlier processes of the run, if different. encoder: file name in `encoder/` -> SHA-256.
    """

    data: dict[str, list[Any]]
    environment: dict[str, str]
    earlier_environments: list[dict[str, str]]
    encoder: dict[str, str]

    @classmethod
    def current(cls, corpus: Corpus, runtime: Runtime) -> Provenance:
        """Return the provenance of a run that starts now."""
        return cls(corpus.contents, versions() | {"runtime": runtime.describe()}, [], {})

    def with_encoder(self, folder: RunFolder) -> Provenance:
        """Return this provenance with the digests of the encoder's files, which are not part of a commit."""
        return replace(self, encoder={file.name: sha256(file) for file in sorted(folder.encoder.iterdir())})

    def continued_from(self, commit: Commit, folder: RunFolder) -> Provenance:
        """Return the provenance of a run that continues from a commit; log and record changes of the environment.

        Raises
        ------
        InputError
            When the data or the encoder's files have changed since the run began.
        """
        earlier = Provenance(**{key: commit.value(key) for key in asdict(self)})
        refuse_other_data(folder, earlier.data, self.data)
        for name, digest in earlier.encoder.items():
            if sha256(own_file(folder.encoder / name, folder.path)) != digest:
                raise InputError(f"{folder.encoder / name}: changed since the run began; put the earlier file back")
        changes = _changes(earlier.environment, self.environment)
        if not changes:
            return earlier
        log.warning(f"continuing with {', '.join(changes)}: the numbers may differ from those of an uninterrupted run")
        environments = [*earlier.earlier_environments, earlier.environment]
        return replace(earlier, environment=self.environment, earlier_environments=environments)

    def recorded(self) -> dict[str, Any]:
        """Return the entries for the state of a commit."""
        return asdict(self)


def training_pairs(commit: Commit, own: DataConfig, evaluated: DataConfig, corpus: Corpus) -> Split:
    """Return the training pairs of a run, with text identities that match those of an evaluated corpus.

    Parameters
    ----------
    commit
        Any commit of the run; its state identifies the pairs.
    own
        The run's own data configuration. If its path does not exist, the path of the evaluated data is tried.
    evaluated, corpus
        The data configuration of the evaluation, and its corpus.

    Raises
    ------
    InputError
        When no path has the training pairs of the run.
    """
    recorded = commit.value("data")
    limits = {key: max(getattr(own, key), getattr(evaluated, key)) for key in ("max_bytes", "max_files")}
    problems = []
    for path in dict.fromkeys([own.path, evaluated.path if evaluated.name == own.name else own.path]):
        candidate = replace(own, path=path, **limits)
        place = f"data={own.name}" if path is None else f"data.path={path}"
        try:
            trained = corpus if candidate == replace(evaluated, **limits) else load_corpus(candidate)
        except InputError as error:
            problems.append(str(error))
            continue
        if isinstance(recorded, dict) and recorded.get("train") == trained.contents["train"]:
            return _identified(candidate, trained, evaluated, corpus)
        problems.append(f"{place}: has other training pairs than the run had")
    raise InputError(
        f"{'; '.join(problems)}. So it is unknown which queries the run saw in training: restore its corpus, or give "
        "its path with data.path"
    )


def _changes(earlier: dict[str, str], now: dict[str, str]) -> list[str]:
    return [f"{key} {now.get(key)} (was {was})" for key, was in earlier.items() if now.get(key) != was]


def _identified(own: DataConfig, trained: Corpus, evaluated: DataConfig, corpus: Corpus) -> Split:
    """Return a run's training pairs with identities of the evaluated corpus, read as that corpus is.

    A reader's own keys can change texts (`data.titles`). The pairs are then read again with those of the evaluation.
    """
    shared = {one.name: getattr(own, one.name) for one in fields(DataConfig)}
    texts, pairs = trained.texts, trained["train"]
    if type(own) is type(evaluated) and replace(evaluated, **shared) != own:
        everything = {"train_overlap": "keep", "copies": "keep", "max_pairs": None}
        reread = load_corpus(replace(evaluated, **shared | everything))
        texts, wanted = reread.texts, set(pairs.ids)
        pairs = reread["train"].take(np.flatnonzero([id_ in wanted for id_ in reread["train"].ids]))
    return replace(pairs, identity=identities(texts, corpus.match, known=corpus.texts))
