"""The wire: frames, messages, error codes. Sans-IO; only `transport/` has sockets.

May not: do I/O outside `transport/`, read a clock, or import any other floor. Rule: docs/architecture.md, "The wire".
"""
