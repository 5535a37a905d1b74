"""Corpora: arguments and pairs from files, and the overlap between splits."""

from negexp.corpus.arguments import SPLITS, Corpus, Split
from negexp.corpus.load import check_path, load_corpus

__all__ = ["SPLITS", "Corpus", "Split", "check_path", "load_corpus"]
