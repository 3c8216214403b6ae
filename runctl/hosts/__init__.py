"""What a host knows of where it stands."""
