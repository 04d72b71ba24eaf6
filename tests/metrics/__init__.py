"""Tests of dtrain/metrics."""
