from made import home

__all__ = ["home"]
