"""Names that become paths: of runs and of a sweep's jobs, as Hydra resolvers.

The resolvers are registered on import. A process that a launcher starts imports `Job`, which imports this module.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from negexp.config import decides_result, flatten

LONGEST = 100  # characters before the hash; file systems allow 255 bytes


def slug(name: str) -> str:
    """Return a name for a folder: characters special to paths or shells become `_`, and then a hash is appended."""
    clean = _clean(str(name))
    return clean if clean == name else f"{clean}-{_digest(str(name))}"


def job_name(*, _root_: DictConfig) -> str:
    """Return the folder of a sweep's job: its overrides as a readable slug, and the hash of its configuration.

    Only overrides that decide the result are in the slug. It is cut at a length; short overrides come first, because
    a sweep tends to vary those, and not the path of the corpus. The hash is of the resolved configuration: the same
    job finds its folder again, and after a changed default it gets another one.
    """
    overrides = [str(override) for override in _root_.hydra.overrides.task]
    decisive = sorted(override for override in overrides if decides_result(_key(override)))
    parts = sorted(",".join(decisive).split(","), key=len)
    return f"{_clean(','.join(parts))}-{_digest(resolved(_root_))}"


def _key(override: str) -> str:
    """Return the key or group of an override.

    >>> [_key(override) for override in ("+trainer.lr=1", "schedule@sampler.random_rate=linear", "~seed")]
    ['trainer.lr', 'schedule', 'seed']
    """
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def resolved(root: DictConfig) -> str:
    """Return every key that decides the result, resolved, as JSON."""
    job = OmegaConf.masked_copy(root, [str(key) for key in root if key != "hydra"])
    values = flatten(cast(dict[str, Any], OmegaConf.to_container(job, resolve=True)))
    decisive = {key: value for key, value in values.items() if decides_result(key)}
    return json.dumps(decisive, sort_keys=True, default=str)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,-]+", "_", text)[:LONGEST].strip("._,") or "job"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


OmegaConf.register_new_resolver("negexp.job", job_name, replace=True)
OmegaConf.register_new_resolver("negexp.slug", slug, replace=True)
