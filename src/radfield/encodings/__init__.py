"""Encodings: position or direction [M, D] -> features [M, C]."""
