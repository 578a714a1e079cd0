"""The programs `radfield data ...`, about captures."""
