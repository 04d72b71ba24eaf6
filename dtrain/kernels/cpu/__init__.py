"""The CPU's operators: the NumPy files here define every result, `onednn` and `jit` make it fast."""
