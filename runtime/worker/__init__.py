"""What runs inside the sandbox: the zygote that forks workers, and the worker's loop.

May not: import the host, or open anything after the sandbox is closed. Rule: docs/architecture.md, "Processes".
"""
