"""Files of other programs: what `radfield export`, `import` and `convert` write and read."""
