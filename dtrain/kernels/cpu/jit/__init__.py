"""CPU operators compiled by numba: what is bound by memory and what oneDNN does not have."""
