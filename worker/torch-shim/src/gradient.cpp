// Gives an output that was computed elsewhere a gradient that is computed elsewhere.

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

// As in gradient.rs. The gradient is handed over, and so are the results; 0 on
// failure.
using Backward = int32_t (*)(void *context, at::Tensor *gradient,
                             at::Tensor **results, size_t count);
using Drop = void (*)(void *context);

struct Given : torch::autograd::Node {
  Given(void *context, Backward backward, Drop drop)
      : context_(context, drop), backward_(backward) {}

  torch::autograd::variable_list
  apply(torch::autograd::variable_list &&gradients) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t count = num_outputs();
    torch::autograd::variable_list results(count);
    if (!gradients[0].defined()) {
      return results;
    }
    if (!context_) {
      throw std::runtime_error(
          "the graph was freed by an earlier backward pass");
    }
    std::vector<at::Tensor *> pointers(count, nullptr);
    const int32_t done =
        backward_(context_.get(), new at::Tensor(std::move(gradients[0])),
                  pointers.data(), count);
    for (size_t i = 0; i < count; ++i) {
      if (pointers[i] != nullptr) {
        results[i] = std::move(*pointers[i]);
        delete pointers[i];
      }
    }
    if (done == 0) {
      throw std::runtime_error("a gradient could not be computed");
    }
    return results;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    context_.reset();
  }

private:
  std::unique_ptr<void, Drop> context_;
  Backward backward_;
};

} // namespace

extern "C" {

// Takes the context over, whatever it returns: 1 if the output got a gradient,
// 0 if no input needs one, -1 on failure.
int32_t halfheard_set_gradient(at::Tensor *output, at::Tensor *const *inputs,
                               size_t count, void *context, Backward backward,
                               Drop drop) {
  std::unique_ptr<void, Drop> owned(context, drop);
  try {
    torch::autograd::variable_list variables;
    for (size_t i = 0; i < count; ++i) {
      variables.push_back(*inputs[i]);
    }
    if (!torch::autograd::GradMode::is_enabled() ||
        !torch::autograd::any_variable_requires_grad(variables)) {
      return 0;
    }
    std::shared_ptr<Given> node(new Given(owned.release(), backward, drop),
                                torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(variables));
    torch::autograd::set_history(*output, node);
    return 1;
  } catch (...) {
    return -1;
  }
}
}
