"""What a host knows of where it stands."""

#: Where everything of ours lies on a rented host; in the drill RUNCTL_HOST_ROOT says where.
ROOT = "/var/lib/runctl"
