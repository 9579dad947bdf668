"""Architectures of the zoo in plain torch, written from the papers, with random weights."""
