"""The interactive viewer: a web page (viser) in which runs, Gaussians, meshes and captures are looked at.

sources.py    what is drawn on the server: a radiance field, Gaussians, a photograph; the answer is a `View`
pictures.py   a `View` as a picture: colour, depth, normals, opacity, samples, occupied cells
refine.py     a picture from coarse to fine, interruptible after every few thousand rays
worker.py     whose picture is drawn next: one pending request per client
server.py     port, token and origin; the page for browsers without WebGL 2
session.py    one client: its camera, its wishes, what it was sent
panel.py, path_panel.py, overlays.py, training_panel.py     the controls, and what stands in the scene
"""
