"""The schema of nets, solvers and stored weights; its text form, its old versions and its files."""
