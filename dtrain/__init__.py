"""Distributed data-parallel training of Caffe-style nets over MPI."""

__version__ = "0.1.0"
