"""What the tools tell of nets, logs and features: arithmetic and files, no arguments."""
