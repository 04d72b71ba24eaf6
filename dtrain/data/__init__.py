"""Records and where they come from: readers, the sampler, the transformer, the feeder threads."""
