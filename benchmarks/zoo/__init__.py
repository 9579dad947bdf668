"""Networks as exporters write them, and how accurate their gradient graphs are.

Random weights, built by code; nothing is downloaded. ``python -m benchmarks.zoo --help`` says what can be asked for.
"""
