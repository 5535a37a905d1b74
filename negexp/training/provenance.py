"""What a run began with: its texts, its encoder's files, its surroundings; whether it may go on with others."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

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
    """Contents of the data, versions and device, those of earlier processes that differed, digests of `encoder/`."""

    data: dict[str, list[Any]]
    environment: dict[str, str]
    earlier_environments: list[dict[str, str]]
    encoder: dict[str, str]

    @classmethod
    def now(cls, corpus: Corpus, runtime: Runtime) -> Provenance:
        """Return the origin of a run that begins here."""
        return cls(corpus.contents, versions() | {"runtime": runtime.describe()}, [], {})

    def with_encoder(self, folder: RunFolder) -> Provenance:
        """Return this origin with the digests of the encoder's files, which no commit holds."""
        return replace(self, encoder={file.name: sha256(file) for file in sorted(folder.encoder.iterdir())})

    def after(self, commit: Commit, folder: RunFolder) -> Provenance:
        """Return the origin of a run that goes on from a commit; what differs in the surroundings is logged and kept.

        Raises
        ------
        InputError
            When the data or the encoder's files are not those that the run began with.
        """
        earlier = Provenance(**{key: commit.value(key) for key in asdict(self)})
        refuse_other_data(folder, earlier.data, self.data)
        for name, digest in earlier.encoder.items():
            if sha256(own_file(folder.encoder / name, folder.path)) != digest:
                raise InputError(f"{folder.encoder / name}: changed since the run began; put the earlier file back")
        changes = _changes(earlier.environment, self.environment)
        if not changes:
            return earlier
        log.warning(f"going on with {', '.join(changes)}: the numbers may differ from those of an undisturbed run")
        environments = [*earlier.earlier_environments, earlier.environment]
        return replace(earlier, environment=self.environment, earlier_environments=environments)

    def recorded(self) -> dict[str, Any]:
        """Return what every commit's state holds of this."""
        return asdict(self)


def training_pairs(commit: Commit, own: DataConfig, evaluated: DataConfig, corpus: Corpus) -> Split:
    """Return the pairs that a run was trained on, with the identities that an evaluated corpus gives their texts.

    Parameters
    ----------
    commit
        Any commit of the run: its state tells which pairs these were.
    own
        The run's own data configuration. When its path is gone, the place of the evaluated data is tried.
    evaluated, corpus
        The data configuration of what is evaluated, and the corpus that it gives.

    Raises
    ------
    InputError
        When no place has the training pairs of the run.
    """
    recorded = commit.value("data")
    limits = {key: max(getattr(own, key), getattr(evaluated, key)) for key in ("max_bytes", "max_files")}
    problems = []
    for path in dict.fromkeys([own.path, evaluated.path if evaluated.name == own.name else own.path]):
        wanted = replace(own, path=path, **limits)
        place = f"data={own.name}" if path is None else f"data.path={path}"
        try:
            trained = corpus if wanted == replace(evaluated, **limits) else load_corpus(wanted)
        except InputError as error:
            problems.append(str(error))
            continue
        if isinstance(recorded, dict) and recorded.get("train") == trained.contents["train"]:
            return replace(trained["train"], identity=identities(trained.texts, corpus.match, known=corpus.texts))
        problems.append(f"{place}: has other training pairs than the run had")
    raise InputError(
        f"{'; '.join(problems)}. So nobody can say which queries the run saw in training: put its corpus back, or name "
        "its place with data.path"
    )


def _changes(earlier: dict[str, str], now: dict[str, str]) -> list[str]:
    return [f"{key} {now.get(key)} (was {was})" for key, was in earlier.items() if now.get(key) != was]
