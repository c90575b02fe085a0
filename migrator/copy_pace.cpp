#include "migrator/copy_pace.h"

#include <algorithm>
#include <utility>

#include "core/page.h"

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

/// How long an emulated guest gets to run before a further pass over its memory is read.
constexpr std::chrono::milliseconds kEmulatedPause{50};
/// Of memory that is made of such pieces, an emulated guest's dirty log has a gap.
constexpr std::uint64_t kLogPiece = 64 * kPageSize;
/// Between two looks whether QEMU is about to end its first pass.
constexpr std::chrono::milliseconds kPassLook{10};
/// Between two looks at what the target's QEMU has.
constexpr std::chrono::milliseconds kDeliveryLook{2};
/// Between two attempts to cancel, until libvirt has taken one.
constexpr std::chrono::milliseconds kCancelAgain{50};
/// After that, until its call returns: it may have come before QEMU began.
constexpr std::chrono::seconds kCancelAnew{2};

}  // namespace

CopyPace::CopyPace(Options options, Hypervisor& hypervisor)
    : options_(std::move(options)), hypervisor_(hypervisor) {}

CopyPace::~CopyPace() {
  finish();
}

void CopyPace::begin(bool emulated) {
  emulated_ = emulated;
  turning_ = std::jthread([this] { options_.postcopy ? switch_to_postcopy() : allow_downtime(); });
  cancelling_ = std::jthread([this] { press_cancel(); });
}

std::unique_ptr<ByteStream> CopyPace::brake(std::unique_ptr<ByteStream> qemu) {
  return std::make_unique<BrakedStream>(std::move(qemu), brake_);
}

PassWatch* CopyPace::passes() {
  return options_.postcopy ? nullptr : this;
}

void CopyPace::guest_stopped() {
  brake_.give_way();
}

void CopyPace::cancel() {
  enter(State::kCancelling);
}

void CopyPace::end() {
  enter(State::kEnded);
}

void CopyPace::finish() {
  end();
  if (turning_.joinable()) turning_.join();
  if (cancelling_.joinable()) cancelling_.join();
}

void CopyPace::first_pass(std::uint64_t bytes_left) {
  if (bytes_left <= kPassEndBytes) brake_.press();
}

void CopyPace::further_pass(std::uint64_t bytes) {
  brake_.press();
  if (emulated_ && bytes % kLogPiece == 0) brake_.pause(kEmulatedPause);
}

void CopyPace::speed_is_true(bool is_true) {
  speed_is_true_ = is_true;
}

void CopyPace::delivered(std::uint64_t bytes, std::uint64_t link_bytes) {
  link_bytes_ = link_bytes;
  brake_.delivered(bytes, link_bytes);
}

void CopyPace::out_of_sight() {
  brake_.release();
}

void CopyPace::allow_downtime() {
  while (!brake_.is_used()) {
    if (!wait_while(State::kCopying, kPassLook)) return;
  }
  while (!brake_.is_drained()) {
    if (!wait_while(State::kCopying, kDeliveryLook)) return;
  }
  const Deadline forgotten = steady_clock::now() + kUntilForgotten;
  while (!speed_is_true_ && steady_clock::now() < forgotten) {
    if (!allow(cautious_downtime()) || !wait_while(State::kCopying, IntakeBrake::kSpan)) return;
  }
  allow(options_.downtime_max);
}

/// False: it was over before libvirt took it. It fails when libvirt is past that.
/// QEMU looks at its limit when it has counted for 100 ms. So it is eased only then: it counts to
/// the end as soon as it can write again.
bool CopyPace::allow(std::chrono::milliseconds time) {
  bool is_allowed = false;
  do {
    is_allowed = hypervisor_.set_downtime_max(options_.vm, time).has_value();
    brake_.ease();
  } while (!is_allowed && wait_while(State::kCopying, kPassLook));
  return is_allowed;
}

std::chrono::milliseconds CopyPace::cautious_downtime() const {
  const double most = static_cast<double>(options_.downtime_max.count());
  const auto left =
      static_cast<double>(std::clamp(2 * link_bytes_.load(), kLeftBytesMin, kLeftBytesMax));
  const double ms = std::min(1'000 * left / brake_.believed_speed_max(), most);
  return std::max(std::chrono::milliseconds(static_cast<std::int64_t>(ms)), kDowntimeNone);
}

/// When half of the guest's memory is across: late enough that the guest has little to pull, early
/// enough that QEMU does not end the migration without a switch.
void CopyPace::switch_to_postcopy() {
  do {
    const auto job = hypervisor_.migration_progress(options_.vm);
    const bool is_due =
        job && job->bytes_processed > 0 && job->bytes_processed >= job->bytes_remaining;
    if (is_due && hypervisor_.start_postcopy(options_.vm)) return;
  } while (wait_while(State::kCopying, options_.switch_look));
}

/// libvirt gets to know of a cancellation only once its job has begun, so this is tried until the
/// copying has ended; and QEMU may be stuck and not hear libvirt, so nobody waits for it.
void CopyPace::press_cancel() {
  while (wait_while(State::kCopying, std::chrono::hours(1))) {
  }
  bool goes_on = wait_while(State::kCancelling, std::chrono::milliseconds(0));
  while (goes_on) {
    const bool is_told = hypervisor_.cancel_migration(options_.vm).has_value();
    goes_on = wait_while(State::kCancelling, is_told ? kCancelAnew : kCancelAgain);
  }
}

/// States follow each other in one direction only.
void CopyPace::enter(State state) {
  const MutexLock lock(mutex_);
  if (state > state_) state_ = state;
  changed_.notify_all();
}

/// False, and at once, when the state is another.
bool CopyPace::wait_while(State state, std::chrono::milliseconds time) {
  const MutexLock lock(mutex_);
  const Deadline end = steady_clock::now() + time;
  while (state_ == state && steady_clock::now() < end) changed_.wait_until(mutex_, end);
  return state_ == state;
}

}  // namespace samepage::migrator
