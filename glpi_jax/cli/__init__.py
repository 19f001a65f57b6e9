"""What the `glpi` command can do: one module a family, each adds its parsers and runs them.

Handlers import what they need when they run, so that `glpi --help` answers at once.
"""
