"""oneDNN's implementations of the CPU operators, through its C interface."""
