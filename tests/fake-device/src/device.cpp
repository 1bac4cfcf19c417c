// A device without hardware: tensors of libtorch's device type Vulkan, which its builds for servers know
// and have no operators for. Their memory is the host's, and every operator runs on the CPU, on aliases of its
// arguments. What the device's own tensors are, and what is the host's, is kept apart as with a GPU.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <utility>
#include <vector>

namespace {

constexpr c10::DeviceType DEVICE = c10::DeviceType::Vulkan;

C10_REGISTER_GUARD_IMPL(Vulkan, c10::impl::NoOpDeviceGuardImpl<DEVICE>)

// A storage on `device` with the memory of another one, which it keeps.
c10::Storage same_memory(const c10::Storage &of, c10::Device device) {
  auto *keeps = new c10::Storage(of);
  c10::DataPtr memory(
      of.mutable_data(), keeps,
      [](void *kept) { delete static_cast<c10::Storage *>(kept); }, device);
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), of.nbytes(), std::move(memory),
      nullptr, false));
}

// A tensor in `storage` with the sizes of another one.
at::Tensor placed(const at::Tensor &like, c10::Storage storage,
                  c10::DispatchKey key) {
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), like.dtype());
  impl->set_sizes_and_strides(like.sizes(), like.strides(),
                              like.storage_offset());
  return at::Tensor(std::move(impl));
}

bool is_on_device(const at::Tensor &tensor) {
  return tensor.defined() && tensor.device().type() == DEVICE;
}

// The arguments of one call: aliases on the host, and what they are aliases of.
class Call {
public:
  explicit Call(const c10::OperatorHandle &op) : name(op.schema().name()) {}

  // An alias on the host. A tensor of the host's stays what it is.
  at::Tensor on_host(const at::Tensor &tensor, bool is_written) {
    if (!is_on_device(tensor)) {
      mixes |= tensor.defined() && tensor.dim() > 0;
      return tensor;
    }
    devices = true;
    if (is_written && tensor.numel() == 0) {
      // An output that the operator gives its size.
      c10::Allocator *host = c10::GetAllocator(c10::DeviceType::CPU);
      auto empty = c10::make_intrusive<c10::StorageImpl>(
          c10::StorageImpl::use_byte_size_t(), 0, host->allocate(0), host, true);
      at::Tensor output = placed(tensor, empty, c10::DispatchKey::CPU);
      outputs.emplace_back(output, tensor);
      return output;
    }
    c10::Storage alias =
        same_memory(tensor.storage(), c10::Device(c10::DeviceType::CPU));
    storages.emplace_back(alias, tensor.storage());
    return placed(tensor, alias, c10::DispatchKey::CPU);
  }

  // The device's tensor of a result on the host.
  at::Tensor on_device(const at::Tensor &result) const {
    if (!result.defined()) {
      return result;
    }
    for (const auto &[alias, original] : storages) {
      if (alias.unsafeGetStorageImpl() ==
          result.storage().unsafeGetStorageImpl()) {
        return placed(result, original, c10::DispatchKey::Vulkan);
      }
    }
    c10::Storage own = same_memory(result.storage(), c10::Device(DEVICE, 0));
    return placed(result, own, c10::DispatchKey::Vulkan);
  }

  // Gives outputs that were empty what they have become.
  void place_outputs() const {
    for (const auto &[output, original] : outputs) {
      c10::TensorImpl *impl = original.unsafeGetTensorImpl();
      impl->set_storage_keep_dtype(
          same_memory(output.storage(), c10::Device(DEVICE, 0)));
      impl->set_sizes_and_strides(output.sizes(), output.strides(),
                                  output.storage_offset());
    }
  }

  // As on a GPU, tensors of the host's are no operands beside the device's, but for lengths to pack by.
  void check() const {
    bool packs = name.find("packed_sequence") != std::string::npos ||
                 name.find("padded_sequence") != std::string::npos;
    TORCH_CHECK(!(devices && mixes) || packs, name,
                " got tensors on the device and on the host");
  }

private:
  std::string name;
  std::vector<std::pair<c10::Storage, c10::Storage>> storages;
  std::vector<std::pair<at::Tensor, at::Tensor>> outputs;
  bool devices = false;
  bool mixes = false;
};

// Applies `f` to all tensors in a value.
template <typename F> c10::IValue each_tensor(const c10::IValue &value, F f) {
  if (value.isTensor()) {
    return f(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> mapped;
    for (const at::Tensor &tensor : value.toTensorVector()) {
      mapped.push_back(f(tensor));
    }
    return mapped;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> mapped;
    for (const auto &tensor : value.toOptionalTensorVector()) {
      mapped.push_back(tensor ? std::make_optional(f(*tensor)) : std::nullopt);
    }
    return mapped;
  }
  return value;
}

void run_on_host(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  const c10::FunctionSchema &schema = op.schema();
  Call call(op);
  size_t first = stack->size() - schema.arguments().size();
  std::vector<c10::IValue> arguments(stack->begin() + first, stack->end());
  for (size_t i = first; i < stack->size(); i++) {
    c10::IValue &value = (*stack)[i];
    const c10::AliasInfo *given = schema.arguments()[i - first].alias_info();
    bool is_written = given != nullptr && given->isWrite();
    if (value.isDevice() && value.toDevice().type() == DEVICE) {
      value = c10::Device(c10::DeviceType::CPU);
    } else {
      value = each_tensor(value, [&](const at::Tensor &tensor) {
        return call.on_host(tensor, is_written);
      });
    }
  }
  call.check();
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(stack);
  }
  call.place_outputs();
  if (schema.name() == "aten::_local_scalar_dense") {
    return;
  }
  first = stack->size() - schema.returns().size();
  for (size_t i = 0; i < schema.returns().size(); i++) {
    c10::IValue &value = (*stack)[first + i];
    const c10::AliasInfo *returned = schema.returns()[i].alias_info();
    bool written = returned != nullptr && returned->isWrite();
    for (size_t j = 0; written && j < arguments.size(); j++) {
      const c10::AliasInfo *given = schema.arguments()[j].alias_info();
      if (given != nullptr && *given == *returned) {
        value = arguments[j];
      }
    }
    if (!written) {
      value = each_tensor(value, [&](const at::Tensor &tensor) {
        return call.on_device(tensor);
      });
    }
  }
}

at::Tensor memory_of(const at::Tensor &tensor) {
  if (!is_on_device(tensor)) {
    return tensor;
  }
  c10::Device host(c10::DeviceType::CPU);
  return placed(tensor, same_memory(tensor.storage(), host),
                c10::DispatchKey::CPU);
}

// Between the host and the device, or within it.
at::Tensor &copy(at::Tensor &self, const at::Tensor &source, bool) {
  at::AutoDispatchBelowADInplaceOrView below;
  memory_of(self).copy_(memory_of(source));
  return self;
}

} // namespace

extern "C" void halfheard_fake_device() {
  // Until the end of the program.
  static auto *all = new torch::Library(torch::Library::IMPL, "_",
                                        c10::DispatchKey::Vulkan, __FILE__, __LINE__);
  static auto *some = new torch::Library(torch::Library::IMPL, "aten",
                                         c10::DispatchKey::Vulkan, __FILE__, __LINE__);
  static bool registered = false;
  if (std::exchange(registered, true)) {
    return;
  }
  all->fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  some->impl("copy_", &copy);
  // libtorch has general implementations of these that ask for one of the devices that it knows.
  for (const char *name : {"convolution", "convolution_backward"}) {
    some->impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  }
  // General implementations that allocate the output and have it written: a fallback does not replace them, and some
  // outputs change their size on the way.
  for (const c10::OperatorName &name :
       c10::Dispatcher::singleton().getAllOpNames()) {
    auto op = c10::Dispatcher::singleton().findOp(name);
    if (op && op->hasKernelForDispatchKey(
                  c10::DispatchKey::CompositeExplicitAutogradNonFunctional)) {
      some->impl(c10::toString(name).c_str(),
                 torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
    }
  }
}
