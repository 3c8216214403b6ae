"""The drill's RunPod: its GraphQL API on loopback, with pods that really run.

cloud       starts it, steers it, ends it: what tests and `drill=…` hold
server      the process: every request passes the faults, then goes to the schema
schema      the part of RunPod's GraphQL schema that is used, really parsed
account     what there is to rent, and what is rented
pods        one pod: its folder, its key, its container
container   the container's process: starts the entrypoint, again when it ends, and ends all that came of it
image       what a pod finds in it: its start script, runpodctl
sshd        OpenSSH's server, found or fetched
"""

from __future__ import annotations
