"""Hydra around the commands: compose, check every job before a folder is made, run once or as a sweep."""

from negexp.application.names import job_name, slug
from negexp.application.run import run_command

__all__ = ["job_name", "run_command", "slug"]
