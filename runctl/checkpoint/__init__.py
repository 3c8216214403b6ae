"""What a checkpoint is: its manifest, and the catalog of those there are."""
