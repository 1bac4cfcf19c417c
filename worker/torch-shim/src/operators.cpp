// Tells an observer of every operator that libtorch runs, on any thread.

#include <ATen/record_function.h>

#include <array>
#include <atomic>
#include <memory>
#include <string_view>

namespace {

// As in operators.rs.
enum Kind : int32_t { OTHER = 0, READ = 1, COPY_TO_DEVICE = 2 };

using Observer = void (*)(const char *name, int32_t kind);

std::atomic<Observer> observer{nullptr};

// Their result depends on values in a tensor: its size, or a number for the host.
constexpr std::array<std::string_view, 10> READERS = {
    "aten::_local_scalar_dense", "aten::nonzero",
    "aten::masked_select",       "aten::equal",
    "aten::_unique",             "aten::_unique2",
    "aten::unique_dim",          "aten::unique_consecutive",
    "aten::bincount",            "aten::unique_dim_consecutive",
};

// Whether the input at `place` is a tensor, on the host or elsewhere as asked.
bool is_tensor(c10::ArrayRef<const c10::IValue> inputs, size_t place,
               bool on_host) {
  if (place >= inputs.size() || !inputs[place].isTensor()) {
    return false;
  }
  const at::Tensor &tensor = inputs[place].toTensor();
  return tensor.defined() && tensor.is_cpu() == on_host;
}

// Whether a mask on a device is among the indices: where it is set decides on the result's size.
bool is_indexed_by_mask(c10::ArrayRef<const c10::IValue> inputs) {
  if (inputs.size() < 2 || !inputs[1].isOptionalTensorList()) {
    return false;
  }
  for (const auto &index : inputs[1].toOptionalTensorVector()) {
    if (index && index->defined() && !index->is_cpu() &&
        (index->scalar_type() == at::kBool ||
         index->scalar_type() == at::kByte)) {
      return true;
    }
  }
  return false;
}

Kind kind_of(std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
  if (name == "aten::copy_") {
    if (is_tensor(inputs, 0, true) && is_tensor(inputs, 1, false)) {
      return READ;
    }
    return is_tensor(inputs, 0, false) && is_tensor(inputs, 1, true)
               ? COPY_TO_DEVICE
               : OTHER;
  }
  if (name == "aten::index" || name == "aten::index_put_" ||
      name == "aten::_index_put_impl_") {
    return is_indexed_by_mask(inputs) ? READ : OTHER;
  }
  for (std::string_view reader : READERS) {
    if (name == reader) {
      return is_tensor(inputs, 0, false) ? READ : OTHER;
    }
  }
  return OTHER;
}

std::unique_ptr<at::ObserverContext> began(const at::RecordFunction &function) {
  Observer tell = observer.load();
  std::string_view name = function.name();
  if (tell != nullptr && name.rfind("aten::", 0) == 0) {
    tell(function.name(), kind_of(name, function.inputs()));
  }
  return nullptr;
}

} // namespace

extern "C" {

// Returns a handle, or 0 on failure.
uint64_t halfheard_observe_operators(Observer tell) {
  try {
    observer.store(tell);
    return at::addGlobalCallback(at::RecordFunctionCallback(began)
                                     .needsInputs(true)
                                     .scopes({at::RecordScope::FUNCTION}));
  } catch (...) {
    return 0;
  }
}

void halfheard_stop_observing_operators(uint64_t handle) {
  observer.store(nullptr);
  try {
    at::removeCallback(handle);
  } catch (...) {
    // Without an observer, nothing is told.
  }
}
}
