"""`runctl`: what there is to do besides launching. One file a group of commands."""
