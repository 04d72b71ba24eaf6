"""Tests of dtrain/solvers."""
