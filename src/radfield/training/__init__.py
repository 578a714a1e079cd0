"""What surrounds the training loop: atomic files, checkpoints, the run folder, progress. The loop itself stands in each
app. Import the modules themselves (`from radfield.training.checkpoint import save_checkpoint`): this file imports none,
so that the command line can read a run's configuration without torch.
"""
