"""Names that become paths: of runs and of a sweep's jobs, as Hydra resolvers.

Registered on import, so also in a process that a launcher starts: it imports `Job`, which imports this.
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
    """Return a name as a folder's: what a path or a shell could take amiss becomes `_`, and a hash tells such apart."""
    clean = _clean(str(name))
    return clean if clean == name else f"{clean}-{_digest(str(name))}"


def job_name(override_dirname: str, *, _root_: DictConfig) -> str:
    """Return the folder of a sweep's job: its overrides as a readable slug, and the hash of what they come to.

    The slug is cut; short overrides come first, which a sweep tends to vary, and not the path of the corpus. The hash
    is of the resolved configuration, so that the same job finds its folder again, and a changed default does not.
    """
    overrides = ",".join(sorted(override_dirname.split(","), key=len))
    return f"{_clean(overrides)}-{_digest(resolved(_root_))}"


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
