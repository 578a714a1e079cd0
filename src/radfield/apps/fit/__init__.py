"""Fields fitted to known values: signed distances of a mesh, one picture, a volume; and their programs."""
