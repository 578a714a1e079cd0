"""Renderers: samples of a field -> pixels."""
