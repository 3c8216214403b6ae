"""Inside the worker: the shim that every rank starts through, and what a script may import."""
