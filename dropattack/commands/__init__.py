"""The commands of `dropattack`, one file each; `main` finds them without importing torch."""
