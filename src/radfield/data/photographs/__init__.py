"""Cameras from bare photographs or a video: structure from motion by pycolmap, in a process of its own.

    collect.py   what a folder holds: photographs, their EXIF focal lengths, which share a camera
    frames.py    frames of a video, chosen by sharpness and overlap
    run.py       the whole: cache, child process, results into a folder (`find_cameras`); the only entrance
    process.py   the child from the parent's side: messages, Ctrl-C, crashes
    child.py     the child itself: its stages, in order
    shrink.py    working copies of the photographs; blurred and identical ones
    pairs.py     which pairs are worth matching
    matching.py  features, matches and two-view geometry, by pycolmap
    mapping.py   incremental and global mapping: the attempts, in order
    refine.py    lens models and bundle adjustment
    output.py    COLMAP model and transforms.json
    quality.py   the line on how well it worked, and its warnings

Nothing here is imported with `radfield`, and pycolmap only in the child.
"""

from .collect import is_bare
from .run import Options, announce, find_cameras, quality_line

__all__ = ["Options", "announce", "find_cameras", "is_bare", "quality_line"]
