"""Hydra: schemas, the search path, the project's file, and their composition into a LaunchSpec."""
