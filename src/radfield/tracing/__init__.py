"""Known geometry traced by ray: analytic solids and triangle meshes, their textures and shading. Exact, and native."""
