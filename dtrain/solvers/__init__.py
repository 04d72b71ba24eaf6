"""Training: learning rates, update rules, the loop, and snapshots."""
