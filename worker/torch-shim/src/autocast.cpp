// Lets libtorch compute products of matrices in bfloat16 for a while, as torch.autocast does.

#include <ATen/autocast_mode.h>

extern "C" {

// Both take 1 for CUDA, 0 for the CPU. The mode is this thread's.
void halfheard_begin_autocast(int32_t cuda) {
  const at::DeviceType type = cuda ? at::kCUDA : at::kCPU;
  at::autocast::set_autocast_dtype(type, at::kBFloat16);
  at::autocast::set_autocast_enabled(type, true);
  at::autocast::increment_nesting();
}

void halfheard_end_autocast(int32_t cuda) {
  at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
  if (at::autocast::decrement_nesting() == 0) {
    // Weights in bfloat16, which the next update would leave behind.
    at::autocast::clear_cache();
  }
}
}
