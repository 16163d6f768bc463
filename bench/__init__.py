"""Benchmarks against peers, in one run on one machine: ratios first, figures beside.

May not: be imported by the project, or assert a time in a test. Rule: docs/performance.md.
"""
