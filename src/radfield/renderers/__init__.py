"""Renderers: samples of a field -> pixels; particles along rays."""


def __getattr__(name: str):
    if name == "trace":  # when first asked for: most who import a renderer trace nothing
        from .gaussian_trace import trace

        return trace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
