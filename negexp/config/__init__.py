"""The typed configuration. A run's saved `config.yaml` is checked like the command line; nothing in it runs."""

from pathlib import Path

from negexp.components import flatten
from negexp.config.cache import CacheConfig
from negexp.config.commands import BenchConfig, EvaluateConfig, MineConfig, TrainConfig
from negexp.config.model import BM25Config, ModelConfig
from negexp.config.of_run import (
    completed_by_run,
    data_of_run,
    given_keys,
    gives_model,
    with_run,
)
from negexp.config.parse import (
    config_hash,
    decides_result,
    load_run_config,
    parse_config,
    parse_train,
    to_yaml,
)
from negexp.config.reranker import RerankerConfig
from negexp.config.search import SearchConfig
from negexp.config.sections import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    IndexConfig,
    ListenerConfig,
    LossConfig,
    MiningConfig,
    SamplerConfig,
    ScheduleConfig,
    TrackerConfig,
    TrainerConfig,
)

CONF_DIR = Path(__file__).parent.parent / "conf"
if not CONF_DIR.is_dir():  # a checkout or an editable install has conf/ beside negexp/, a wheel inside it
    CONF_DIR = Path(__file__).parent.parent.parent / "conf"

__all__ = [
    "CONF_DIR",
    "BM25Config",
    "BatchConfig",
    "BenchConfig",
    "CacheConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "IndexConfig",
    "ListenerConfig",
    "LossConfig",
    "MineConfig",
    "MiningConfig",
    "ModelConfig",
    "RerankerConfig",
    "SamplerConfig",
    "ScheduleConfig",
    "SearchConfig",
    "TrackerConfig",
    "TrainConfig",
    "TrainerConfig",
    "completed_by_run",
    "config_hash",
    "data_of_run",
    "decides_result",
    "flatten",
    "given_keys",
    "gives_model",
    "load_run_config",
    "parse_config",
    "parse_train",
    "to_yaml",
    "with_run",
]
