"""Milliseconds on the table: kernels timed in the target's runtime, kept by device, fitted to any width."""
