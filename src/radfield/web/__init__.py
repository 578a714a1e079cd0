"""Light forms of a scene that a page in a browser draws without a server."""
