"""Readers of files against mutated files, in processes that may die or hang.

``python -m tests.fuzz --cases 20000`` runs every target longer than the test suite does.
"""
