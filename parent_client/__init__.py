"""The runtime client on the untrusted parent instance, and `teactl`.

May not: import the host or its providers: whatever it says is verified inside. Rule: docs/architecture.md, "Processes".
"""
