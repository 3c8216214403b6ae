"""One attempt on one host: environment, torchrun, watching, lifetime. Started as `python -m runctl.agent`."""
