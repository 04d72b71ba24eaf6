"""Mirrors benchmarks/: what they print, decide and ask, without a card."""
