"""The configurations that runctl ships, as the package `runctl.conf`."""
