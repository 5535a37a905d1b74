"""Corpora: arguments and pairs from files, and what the splits share with each other."""

from negexp.corpus.arguments import SPLITS, Corpus, Split
from negexp.corpus.load import check_path, load_corpus

__all__ = ["SPLITS", "Corpus", "Split", "check_path", "load_corpus"]
