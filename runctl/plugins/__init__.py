"""The built-in plugins, written against the same hooks that users have."""
