"""radfield from Python: train a radiance field in ten lines, ask it, and open a run that `radfield train` made.

    .venv/bin/python examples/01_python_api.py CAPTURE [--steps 200] [--run RUN]

CAPTURE is a folder with transforms.json (or transforms_train.json) and images; `radfield data synth carved CAPTURE`
makes one. Every part is a plain object: the encoding and the networks are options of the field, the field is handed to
the renderer, and the training loop is yours. (The programs' loop is `train_step` in `radfield/apps/ngp/`; it adds a
learning-rate schedule, batches that keep their number of samples, and an optimiser several times as fast.)
"""

import argparse

import torch

import radfield
from radfield.camera_rays import camera_rays
from radfield.data.pixels import sample_pixels
from radfield.encodings.hash_grid import Config as HashGrid
from radfield.fields.radiance import Config as Field
from radfield.renderers import volume
from radfield.sampling import occupancy


def train(capture: str, steps: int) -> radfield.RadianceField:
    """A small field, trained on random pixels of the capture with torch's own optimiser."""
    # Encoding, field, renderer ...
    scene = radfield.load_capture(capture)
    field = radfield.RadianceField(Field(grid=HashGrid(levels=8, features=4, log2_size=15)), scene.cascades)
    grid = radfield.OccupancyGrid(occupancy.Config(resolution=64, cascades=scene.cascades))
    sampling, buffers = volume.Config(step=0.01), volume.TrainingBuffers(1 << 18)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2, eps=1e-15)
    # ... and the loop.
    for step in range(steps):
        pixels = sample_pixels(scene.train.images, 1024, step=step)
        rays = camera_rays(scene.train.cameras, pixels.view, pixels.pixel)
        render = volume.render_training(field, grid, rays, pixels.background, sampling, step, buffers)
        loss = (render.color - pixels.color[: render.rays]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 16 == 15:
            grid.update(field.density)
    print(f"{steps} steps; the last one's loss is {loss.item():.4f}")
    return field


def ask(field) -> None:
    """Density and colour at the centre of the scene, seen from above: of a field, or of what `radfield.load` gives."""
    x = torch.tensor([[0.5, 0.5, 0.5]])  # scene coordinates: the unit cube holds the object
    d = torch.tensor([[0.0, 0.0, -1.0]])
    density, color = field.density(x).item(), field.color(x, d)[0].tolist()
    print(f"density {density:.3g}, colour {' '.join(f'{c:.2f}' for c in color)}")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Train a radiance field from Python, and ask it.")
    parser.add_argument("capture")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--run", help="a run that `radfield train` made, to ask it the same")
    options = parser.parse_args()
    ask(train(options.capture, options.steps))
    if options.run:
        ask(radfield.load(options.run))


if __name__ == "__main__":
    main()
