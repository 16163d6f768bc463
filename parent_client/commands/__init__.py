"""`teactl`'s commands, one module a noun; each has a `register(app)` that pyproject.toml names.

May not: hold logic that another program would want: that is in the modules beside this folder.
Rule: CONTRIBUTING.md, "A command".
"""
