"""Tests of readers, sampler, transformer, feeder and converters."""
