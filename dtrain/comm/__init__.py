"""Groups of processes: collectives on arrays, gradient buckets, and the watch that names a stuck rank."""
