"""A script as users of tiny-cuda-nn write it: nothing in it knows of radfield. Fits an image in a dozen steps."""

import tinycudann as tcnn
import torch

config = {
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 8,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "base_resolution": 8,
        "per_level_scale": 1.5,
    },
    "network": {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": 64,
        "n_hidden_layers": 2,
    },
}
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def image(xy):
    """A disc on a gradient."""
    disc = ((xy - 0.5).norm(dim=1, keepdim=True) < 0.3).float()
    return torch.cat([xy, disc], 1)


model = tcnn.NetworkWithInputEncoding(
    n_input_dims=2, n_output_dims=3, encoding_config=config["encoding"], network_config=config["network"]
).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
losses = []
for _ in range(12):
    batch = torch.rand(4096, 2, device=device)
    target = image(batch)
    output = model(batch)
    loss = torch.nn.functional.mse_loss(output, target.to(output.dtype))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
tcnn.free_temporary_memory()
