"""Alternatives to the paper's parts; each replaces a part of `Transformer`, which does not know of it."""
