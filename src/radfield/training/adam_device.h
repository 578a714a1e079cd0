// What the CUDA kernels that take a step of Adam share. Only device compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "adam.h"

namespace radfield {

// The rates in use: those of the schedule on the device where there is one. Returns whether anything shall move.
RADFIELD_FN bool read_schedule(AdamStep& a) {
  if (!a.schedule) return true;
  a.rate = a.schedule[0], a.correction2 = a.schedule[1];
  return a.schedule[2] != 0;
}

// Steps parameter i by its gradient; whether the gradient was refused. SKIP: entries without gradient stay.
template <bool SKIP>
RADFIELD_FN bool adam_entry(const AdamStep& a, int64_t i, float grad, bool moves) {
  if (!adam_accepts(grad)) return true;
  if (!moves || (SKIP && grad == 0.0f)) return false;
  const AdamState<float> next = adam_update(AdamState<float>{a.parameter[i], a.m[i], a.v[i]}, grad, a);
  a.parameter[i] = next.parameter, a.m[i] = next.m, a.v[i] = next.v;
  if (a.shadow) a.shadow[i] = to_bf16(next.parameter);
  return false;
}

// *bad += the threads of the block that refused.
RADFIELD_FN void count_refused(int64_t* bad, bool refused) {
  const int count = __syncthreads_count(refused);
  if (count && threadIdx.x == 0) atomicAdd((unsigned long long*)bad, (unsigned long long)count);
}

// A thread is an entry's value: the step on a table, from the gradient that a kernel before left in `grad` [E F].
template <bool SKIP, class Args>
RADFIELD_FN void step_table(const Args& a, const float* grad) {
  AdamStep step{};
  step.parameter = a.parameter, step.m = a.m, step.v = a.v, step.shadow = a.shadow;
  if constexpr (requires { a.schedule; }) step.schedule = a.schedule;
  step.rate = a.rate, step.beta1 = a.beta1, step.beta2 = a.beta2, step.epsilon = a.epsilon;
  step.correction2 = a.correction2, step.l2 = a.l2;
  const bool moves = read_schedule(step);
  const int64_t i = thread_number();
  count_refused(a.bad, i < a.E * a.F && adam_entry<SKIP>(step, i, grad[i], moves));
}
template <class Args>
RADFIELD_FN void clear_table(const Args& a, float* grad) {
  const int64_t i = thread_number();
  if (i == 0) *a.bad = 0;
  if (i < a.E * a.F) grad[i] = 0.0f;
}

}  // namespace radfield
