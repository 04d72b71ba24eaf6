"""Arithmetic on arrays: one folder a device, the same operators in each."""
