"""Entropy coding: integer probability tables, the arithmetic coder, and symbols to a payload and back."""

from dcu.entropy.coder import EntropyCoder, float_context, integer_tensors

__all__ = ["EntropyCoder", "float_context", "integer_tensors"]
