"""Fields: encoding + networks -> density and colour, distance, or signal."""
