"""Sampling: where along a ray a field is asked. Occupancy grid, ray marching."""
