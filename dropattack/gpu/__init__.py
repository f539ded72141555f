"""Tests and measurements that need a GPU, in one command with a time limit: see scripts/gpu.py."""
