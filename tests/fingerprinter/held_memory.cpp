#include "tests/fingerprinter/held_memory.h"

#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/check.h"
#include "fingerprinter/guest_process.h"
#include "fingerprinter/pagemap.h"

namespace samepage::fingerprinter {
namespace {

/// Empty for anonymous memory.
Fd ram_file(Holding holding, std::uint64_t bytes) {
  if (holding == Holding::kPrivate) return Fd();
  Fd file(::memfd_create("pc.ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  CHECK(::ftruncate(file.get(), static_cast<off_t>(bytes)) == 0);
  return file;
}

std::byte* map_ram(Holding holding, std::uint64_t bytes, const Fd& file) {
  // Guard pages on both sides keep the kernel from merging the mapping with a neighbour.
  const std::uint64_t around = 4U << 20U;
  void* reserved =
      ::mmap(nullptr, bytes + 2 * around, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(reserved != MAP_FAILED);
  // At a multiple of 2 MiB, as QEMU aligns RAM for huge pages.
  const std::uintptr_t align = 2U << 20U;
  std::byte* address = static_cast<std::byte*>(reserved) + align -
                       reinterpret_cast<std::uintptr_t>(reserved) % align;
  int flags = MAP_FIXED | (holding == Holding::kMemfd ? MAP_SHARED : MAP_PRIVATE);
  if (holding == Holding::kPrivate) flags |= MAP_ANONYMOUS;
  void* ram = ::mmap(address, bytes, PROT_READ | PROT_WRITE, flags, file.get(), 0);
  CHECK(ram != MAP_FAILED);
  return static_cast<std::byte*>(ram);
}

[[noreturn]] void serve(std::byte* ram, const Fd& control, const HeldMemory::Action& prepare,
                        const HeldMemory::Action& action) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  prepare(ram);
  char command = 'r';
  while (::write(control.get(), &command, 1) == 1 && ::read(control.get(), &command, 1) == 1) {
    action(ram);
  }
  ::_exit(0);
}

void await(const Fd& control) {
  char answer = 0;
  CHECK(::read(control.get(), &answer, 1) == 1);
}

}  // namespace

HeldMemory::HeldMemory(Holding holding, std::uint64_t pages, const Action& prepare,
                       const Action& action)
    : bytes_(pages * kPageSize), file_(ram_file(holding, bytes_)) {
  std::array<int, 2> ends{};
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  control_.reset(ends[0]);
  const Fd child_end(ends[1]);
  pid_ = ::fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) {
    control_.reset();
    serve(map_ram(holding, bytes_, file_), child_end, prepare, action);
  }
  await(control_);
}

HeldMemory::~HeldMemory() {
  end();
}

void HeldMemory::act() {
  CHECK(::write(control_.get(), "a", 1) == 1);
  await(control_);
}

void HeldMemory::end() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

VmInfo HeldMemory::vm() const {
  VmInfo vm;
  vm.name = "held";
  vm.memory_bytes = bytes_;
  vm.pid = pid_;
  return vm;
}

std::uint64_t present_pages(const VmInfo& vm) {
  const auto process = GuestProcess::open(vm.pid);
  CHECK(process);
  const auto ram = find_ram(process->mappings().value(), vm.memory_bytes);
  CHECK(ram);
  std::vector<PagemapEntry> entries(vm.memory_bytes / kPageSize);
  CHECK(read_pagemap(process->pagemap(), ram->address, entries));
  std::uint64_t present = 0;
  for (const PagemapEntry& entry : entries) present += entry.present() ? 1 : 0;
  return present;
}

void write_page(std::byte* ram, std::uint64_t page, std::uint64_t content) {
  for (std::size_t at = 0; at < kPageSize; at += sizeof(content)) {
    std::memcpy(ram + page * kPageSize + at, &content, sizeof(content));
  }
}

}  // namespace samepage::fingerprinter
