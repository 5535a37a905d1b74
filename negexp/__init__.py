"""negexp: which negatives should a dense retriever see, and when?"""

__version__ = "0.2.0"
