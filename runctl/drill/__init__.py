"""The drill: a loopback cloud on which a launch is rehearsed for real, without an account or a network.

cloud       starts it, steers it, ends it: what tests and `drill=…` hold
steering    what every cloud is steered by
server      the process: every request passes the faults, then goes to whoever answers it
request     what a request is, and whose key signed it
recorder    requests and answers kept, for whoever looks through them
faults      errors and lost answers, to order
ec2         instances and their tokens around moto's EC2; prices
network     ways out, endpoints, and which instances reach SSM
guard       rights, where they are checked: callers (who asks), rights (what is needed), iam (what policies say)
ssm         commands that really run
metadata    what an instance learns of itself (IMDSv2)
sandboxes   an instance's folder, processes and shutdown
scenario    what happens, and when
rehearsal   one launch in it, and the events on its way
report      what came of it
sweep_report  what came of a whole sweep
runpod      the same of RunPod: its API, and pods with a real sshd
pytest      all that as a fixture for a user's own tests
"""

from __future__ import annotations
