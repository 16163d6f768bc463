"""The host: boots, loads what is approved, starts workers, routes, supervises.

May not: be imported by the parent's side. Rule: docs/architecture.md, "Processes".
"""
