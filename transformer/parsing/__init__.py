"""Constituency parsing as transduction (section 6.3); importing it registers treebanks as corpora."""

from transformer.parsing import treebank as treebank
