"""`gsplat.cuda._torch_impl`: there the plain torch versions; the public one is `accumulate`."""

from ..pairs import accumulate

__all__ = ["accumulate"]
