// What torch asks of a device: memory, random numbers, guards. Read `device.cpp` first.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstring>

namespace pretend {

inline const c10::Device GPU(c10::DeviceType::CUDA, 0);
// Off while torch is imported: the import of a CPU build does not expect a device.
inline bool is_on = false;

// The host's memory, said to be the device's.
struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto host = c10::GetCPUAllocator()->allocate(n);
    void* data = host.get();
    auto deleter = host.get_deleter();
    return c10::DataPtr(data, host.release_context(), deleter, GPU);
  }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};
inline Memory memory;

// A generator of the CPU. Its state has another size than the CPU's, as that of a GPU has, so that a
// state that is put back on the wrong device is noticed.
struct Generator final : c10::GeneratorImpl {
  static constexpr int64_t EXTRA = 8;
  at::Generator host;

  explicit Generator(at::Generator g)
      : c10::GeneratorImpl(GPU, c10::DispatchKeySet(c10::DispatchKey::CUDA)), host(std::move(g)) {}
  static c10::DeviceType device_type() { return c10::DeviceType::CUDA; }
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    auto own = host.unsafeGetGeneratorImpl()->get_state();
    auto state = at::zeros({own->numel() + EXTRA}, at::kByte);
    std::memcpy(state.data_ptr(), own->data(), own->numel());
    return state.getIntrusivePtr();
  }
  void set_state(const c10::TensorImpl& state) override {
    int64_t size = host.unsafeGetGeneratorImpl()->get_state()->numel();
    TORCH_CHECK(state.numel() == size + EXTRA, "RNG state is wrong size");
    auto own = at::empty({size}, at::kByte);
    std::memcpy(own.data_ptr(), state.data(), size);
    host.unsafeGetGeneratorImpl()->set_state(*own.unsafeGetTensorImpl());
  }
  Generator* clone_impl() const override { return new Generator(host.clone()); }
};

inline at::Generator& default_generator() {
  static at::Generator generator = at::make_generator<Generator>(at::detail::createCPUGenerator());
  return generator;
}

inline at::Generator host_generator(const at::Generator& generator) {
  return static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->host;
}

// How torch asks whether there is CUDA. The names of the macros below are torch's.
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return is_on; }
  bool isBuilt() const override { return is_on; }
  bool isAvailable() const override { return is_on; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return is_on; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<Generator>(at::detail::createCPUGenerator());
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)

// One device, one stream, and nothing is ever waited for.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::DeviceType::CUDA;
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device) const override { return GPU; }
  c10::Device getDevice() const override { return GPU; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return s; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    static char some_event;
    *event = &some_event;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace pretend
