"""Surfaces of fields as triangle meshes: extraction, parts, files, comparison."""
