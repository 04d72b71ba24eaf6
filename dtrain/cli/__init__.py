"""The commands: one module each, and the only place that builds a run from arguments."""
