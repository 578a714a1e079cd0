// A thread is a Gaussian; as gaussian_projection.cpp.
#include "gaussian_projection_device.h"

namespace radfield {

__global__ void gaussian_project_forward(const GaussianProjectForward a) { project_gaussian(a); }

template <bool WITH_CAMERA>
__global__ void gaussian_project_backward(const GaussianProjectBackward a) {
  project_gaussian_backward<WITH_CAMERA>(a);
}

}  // namespace radfield
