"""A whole network of enclaves on one machine: parents, hosts, simulated NSMs, faults on demand.

May not: import the host; it starts hosts as processes. Rule: docs/architecture.md, "Modes".
"""
