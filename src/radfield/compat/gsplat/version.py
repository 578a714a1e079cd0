"""Which gsplat the interface is that of."""

__version__ = "1.5.3"
