"""One run: its config, what is built from it, the experiment, and the record."""
