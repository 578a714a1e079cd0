"""`gsplat.cuda._torch_impl_2dgs`: the public function is `accumulate_2dgs`."""

from ..surfel_pixels import accumulate_2dgs

__all__ = ["accumulate_2dgs"]
