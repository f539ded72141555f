"""Many runs: the cells of a table, where they run, tuning, and publishing."""
