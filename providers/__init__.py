"""Providers: trusted code in the host that gives actors one capability each; one folder a provider.

May not: import one another, the sdk or the runtime. Rule: docs/architecture.md, "Providers".
"""
