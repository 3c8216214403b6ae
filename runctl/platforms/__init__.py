"""Platforms are plugins that plan, submit, describe, cancel and bill; found by their kind."""
