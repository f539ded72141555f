"""Everything that only a GPU can show, in one command with a time limit: see scripts/gpu.py."""
