"""`gsplat.cuda`: the modules that programs import low-level functions from."""
