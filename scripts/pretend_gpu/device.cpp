// Operations of the pretended device: each is the CPU's, on the same memory, after a look at where its arguments are.
//
// A tensor of the device has the dispatch key CUDA and memory of the host (`device.h`). `fallback` catches every
// operation on such tensors. It refuses what a GPU refuses (an argument on the host, a generator of the host), hands
// the CPU's operation tensors of the CPU that share the memory, and says of the results that they are the device's.
// Below it: what can not go that way, because it makes tensors, moves them between devices or is about their storage.
#include "device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <atomic>
#include <set>
#include <torch/library.h>

namespace pretend {
namespace {

std::atomic<bool> waiting_is_an_error{false};  // torch.cuda.set_sync_debug_mode("error")

void wait_for_the_device(const std::string& what) {
  TORCH_CHECK(!waiting_is_an_error, "called a synchronizing CUDA operation: ", what);
}

// Tensors of the device as tensors of the CPU on the same memory; others as they are.
at::Tensor host(const at::Tensor& t) {
  if (!t.defined() || !t.is_cuda()) return t;
  auto* shared = new c10::Storage(t.storage());
  c10::DataPtr data(shared->mutable_data(), shared, [](void* p) { delete static_cast<c10::Storage*>(p); }, at::kCPU);
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), shared->nbytes(), std::move(data), nullptr, /*resizable=*/false);
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return out;
}

// A result of the CPU, copied into memory of the device.
at::Tensor device(const at::Tensor& t) {
  if (!t.defined() || !t.device().is_cpu()) return t;
  size_t n = t.storage().nbytes();
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), n, memory.allocate(n), &memory, /*resizable=*/true);
  if (n) std::memcpy(storage->mutable_data(), t.storage().data(), n);
  auto out = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), t.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return out;
}

const at::Tensor& resize_(const at::Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  if (self.sizes() == size) return self;
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  size_t need = (impl->numel() + impl->storage_offset()) * self.itemsize();
  auto* storage = impl->storage().unsafeGetStorageImpl();
  if (storage->nbytes() < need) {
    auto fresh = memory.allocate(need);
    if (storage->nbytes()) std::memcpy(fresh.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(fresh));
    storage->set_nbytes(need);
  }
  return self;
}

// ------------------------------------------------------------------------------------------- every other operation
bool is_written(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
}

// One call of an operation: what it was given, and what a GPU would object to.
struct Call {
  const c10::FunctionSchema& schema;
  std::string name;
  std::vector<at::Tensor> given;  // by argument; undefined where it is no tensor
  bool meets_device = false;
  bool has_mask = false;  // among its indices
  bool waits;
  std::string on_host;  // arguments that a GPU would miss

  explicit Call(const c10::OperatorHandle& op)
      : schema(op.schema()), name(toString(op.operator_name())), given(op.schema().arguments().size()) {
    // Their results have sizes that depend on values, or are values.
    static const std::set<std::string> waiting{
        "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
        "aten::repeat_interleave.Tensor", "aten::equal", "aten::is_nonzero"};
    waits = waiting.count(name) > 0;
  }

  void look(const at::Tensor& t, size_t i) {
    if (!t.defined()) return;
    if (t.is_cuda()) meets_device = true;
    // A single number of the host may meet the device, unless it is what is written.
    else if (t.device().is_cpu() && (t.dim() > 0 || is_written(schema.arguments()[i])))
      on_host += " " + schema.arguments()[i].name();
  }

  c10::IValue to_host(const c10::IValue& v, size_t i) {
    if (v.isTensor()) {
      const auto& t = given[i] = v.toTensor();
      look(t, i);
      // An empty `out` is resized, which shared memory can not be: the result is copied back.
      bool is_empty_out = is_written(schema.arguments()[i]) && t.defined() && t.is_cuda() && t.numel() == 0;
      return is_empty_out ? at::empty(t.sizes(), t.options().device(at::kCPU)) : host(t);
    }
    if (v.isTensorList()) {
      c10::List<at::Tensor> hosts;
      for (const at::Tensor& t : v.toTensorVector()) look(t, i), hosts.push_back(host(t));
      return hosts;
    }
    if (v.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> hosts;
      for (std::optional<at::Tensor> t : v.toOptionalTensorList()) {
        if (t && t->defined() && t->is_cuda()) meets_device = true;  // indices may be the host's
        if (t && t->defined() && t->scalar_type() == at::kBool) has_mask = true;
        hosts.push_back(t ? std::optional(host(*t)) : std::nullopt);
      }
      return hosts;
    }
    if (v.isDevice() && v.toDevice().is_cuda()) return c10::Device(at::kCPU);
    if (v.isGenerator()) {
      bool is_ours = v.toGenerator().device().is_cuda();
      if (is_ours) meets_device = true;
      else on_host += " generator";
      return is_ours ? c10::IValue(host_generator(v.toGenerator())) : v;
    }
    if (v.isNone() && schema.arguments()[i].name() == "generator") return host_generator(default_generator());
    return v;
  }

  void check() const {
    TORCH_CHECK(!meets_device || on_host.empty(), "Expected all tensors to be on the same device, but found at least ",
                "two devices, cuda:0 and cpu! (", name, ":", on_host, ")");
    bool puts = name.find("index_put") != std::string::npos;
    // One value at a mask is filled in; for more it has to be known how many there are.
    if (waits || (puts && has_mask && given[2].numel() != 1)) wait_for_the_device(name);
  }

  // The argument that result `r` is, where the operation changes it in place; undefined otherwise.
  at::Tensor changed(size_t r) const {
    const auto* info = schema.returns()[r].alias_info();
    for (size_t i = 0; info && i < given.size(); i++) {
      const auto& argument = schema.arguments()[i];
      if (is_written(argument) && argument.alias_info()->beforeSets() == info->beforeSets() && given[i].defined() &&
          given[i].is_cuda())
        return given[i];
    }
    return {};
  }

  c10::IValue to_device(const c10::IValue& v, size_t r) const {
    const auto* info = schema.returns()[r].alias_info();
    // It would be a copy that nobody expects.
    TORCH_CHECK(!info || info->isWrite(), "the pretended GPU has no view ", name, ": add it to device.cpp");
    if (v.isTensorList()) {
      c10::List<at::Tensor> out;
      for (const at::Tensor& t : v.toTensorVector()) out.push_back(device(t));
      return out;
    }
    if (!v.isTensor() || !v.toTensor().defined()) return v;
    auto got = v.toTensor(), own = changed(r);
    if (!own.defined()) return device(got);
    if (own.sizes() != got.sizes()) resize_(own, got.sizes(), std::nullopt);
    if (got.numel() && got.data_ptr() != host(own).data_ptr()) host(own).copy_(got);
    return own;
  }
};

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  Call call(op);
  size_t first = stack->size() - call.given.size();
  for (size_t i = 0; i < call.given.size(); i++) (*stack)[first + i] = call.to_host((*stack)[first + i], i);
  call.check();
  op.callBoxed(stack);
  size_t n_results = call.schema.returns().size();
  for (size_t r = 0; r < n_results; r++) {
    auto& result = (*stack)[stack->size() - n_results + r];
    result = call.to_device(result, r);
  }
}

// ----------------------------------------------------------------------- what makes tensors, moves or rearranges them
using Dtype = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using MaybeDevice = std::optional<c10::Device>;
using Pinned = std::optional<bool>;
const c10::DispatchKeySet CUDA_KEY(c10::DispatchKey::CUDA);

at::ScalarType kind(Dtype dtype) { return dtype.value_or(at::get_default_dtype_as_scalartype()); }

void check_there(MaybeDevice where) {
  TORCH_CHECK(!where || where->index() <= 0, "CUDA error: invalid device ordinal");
}

at::Tensor empty(c10::IntArrayRef size, Dtype dtype, Layout, MaybeDevice where, Pinned,
                 std::optional<at::MemoryFormat> format) {
  check_there(where);
  return at::detail::empty_generic(size, &memory, CUDA_KEY, kind(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, Dtype dtype, Layout, MaybeDevice where,
                         Pinned) {
  check_there(where);
  return at::detail::empty_strided_generic(size, stride, &memory, CUDA_KEY, kind(dtype));
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& from, bool non_blocking) {
  if (self.is_cuda() != from.is_cuda() && !non_blocking) wait_for_the_device("copy_ between devices");
  auto to = host(self);
  to.copy_(host(from));
  return self;
}

at::Scalar local_scalar(const at::Tensor& self) {
  wait_for_the_device("item");
  return at::_local_scalar_dense(host(self));
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& from) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(from.storage());
  impl->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage) {
  auto* impl = self.unsafeGetTensorImpl();
  int64_t numel = storage.nbytes() / self.itemsize();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(0);
  impl->set_sizes_contiguous({numel});
  return self;
}

at::Tensor& set_part(at::Tensor& self, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size,
                     c10::SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset.expect_int());
  if (stride.size() == size.size())
    impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  else
    impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  return self;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  m.impl("resize_", resize_);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_part);
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

// For `answers.py`.
TORCH_LIBRARY(pretend_gpu, m) {
  m.def("turn_on() -> ()", [] {
    is_on = true;
    c10::SetAllocator(c10::DeviceType::CUDA, &memory, /*priority=*/255);
  });
  m.def("waiting_is_an_error(bool on) -> ()", [](bool on) { waiting_is_an_error = on; });
  m.def("default_generator() -> Generator?", [] { return std::optional(default_generator()); });
}

}  // namespace pretend
