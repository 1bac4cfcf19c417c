// Adam over many tensors at once, as PyTorch's optimizers do it with
// foreach=True: a few kernels for all of them instead of ten for each.

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

namespace {

std::vector<at::Tensor> tensors(at::Tensor *const *pointers, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    all.push_back(*pointers[i]);
  }
  return all;
}

std::vector<at::Scalar> scalars(const double *numbers, size_t count) {
  return std::vector<at::Scalar>(numbers, numbers + count);
}

} // namespace

extern "C" {

// As in adam.rs.
struct HalfheardAdam {
  double keep_first;
  double keep_second;
  double eps;
  double coupled_decay;
  double shrink;
};

// Returns what went wrong, to be freed, or null.
char *halfheard_adam_step(at::Tensor *const *weight_pointers,
                          at::Tensor *const *gradient_pointers,
                          at::Tensor *const *first_pointers,
                          at::Tensor *const *second_pointers,
                          const double *rates, const double *corrections,
                          size_t count, const HalfheardAdam *adam) {
  try {
    const auto weights = tensors(weight_pointers, count);
    auto gradients = tensors(gradient_pointers, count);
    const auto first = tensors(first_pointers, count);
    const auto second = tensors(second_pointers, count);
    if (adam->coupled_decay != 0.0) {
      gradients = at::_foreach_add(gradients, weights, adam->coupled_decay);
    }
    if (adam->shrink != 1.0) {
      at::_foreach_mul_(weights, adam->shrink);
    }
    at::_foreach_lerp_(first, gradients, 1.0 - adam->keep_first);
    at::_foreach_mul_(second, adam->keep_second);
    at::_foreach_addcmul_(second, gradients, gradients,
                          1.0 - adam->keep_second);
    auto denominators = at::_foreach_sqrt(second);
    at::_foreach_div_(denominators, scalars(corrections, count));
    at::_foreach_add_(denominators, adam->eps);
    at::_foreach_addcdiv_(weights, first, denominators, scalars(rates, count));
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception without a message");
  }
}

void halfheard_free_message(char *message) { free(message); }
}
