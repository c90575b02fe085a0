#include <map>
#include <string>

#include <fmt/format.h>

#include "core/page.h"
#include "placer/sharing.h"
#include "tools/samepage-placer/api.h"

namespace samepage::control {
namespace {

constexpr std::size_t kPlansCounted = 1'000;

/// Prometheus' text format, one family after the other.
class Families {
 public:
  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  }

  void sample(const std::string& labels, double value) {
    text_ += fmt::format("{}{} {}\n", name_, labels, value);
  }

  std::string take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

std::string host_label(const std::string& host) {
  return fmt::format("{{host=\"{}\"}}", host);
}

double bytes(double pages) {
  return pages * static_cast<double>(kPageSize);
}

void add_hosts(const placer::Fleet& fleet, Families& families) {
  families.begin("samepage_host_up", "gauge", "Whether the host's agent reports.");
  for (const placer::Host& host : fleet.hosts) {
    families.sample(host_label(host.name), host.state == placer::HostState::kUp ? 1 : 0);
  }
  families.begin("samepage_host_vms", "gauge", "VMs on the host.");
  for (const placer::Host& host : fleet.hosts) {
    families.sample(host_label(host.name), static_cast<double>(fleet.vms_on(host.name).size()));
  }
  families.begin("samepage_host_shared_predicted_bytes", "gauge",
                 "Memory that merging equal pages on the host would save.");
  for (const placer::Host& host : fleet.hosts) {
    const auto vms = fleet.vms_on(host.name);
    families.sample(host_label(host.name), bytes(placer::predict_sharing(vms).total().pages));
  }
  families.begin("samepage_host_shared_achieved_bytes", "gauge",
                 "Memory that sharing saves on the host, counted by frames.");
  for (const placer::Host& host : fleet.hosts) {
    if (!host.memory) continue;
    families.sample(host_label(host.name),
                    bytes(static_cast<double>(host.memory->achieved_shared_pages())));
  }
  families.begin("samepage_host_guest_bytes", "gauge", "Frames behind the host's guests.");
  for (const placer::Host& host : fleet.hosts) {
    if (!host.memory) continue;
    families.sample(host_label(host.name),
                    bytes(static_cast<double>(host.memory->distinct_frames)));
  }
}

/// As a label's value: names may hold what means something there.
std::string quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

void add_vms(const placer::Fleet& fleet, Families& families) {
  families.begin("samepage_vm_memory_bytes", "gauge",
                 "Memory of the VM that is its own, its template's or merged by KSM.");
  for (const placer::Vm& vm : fleet.vms) {
    if (!vm.memory) continue;
    const auto sample = [&](const char* whose, std::uint64_t pages) {
      families.sample(fmt::format("{{vm={},uuid={},host={},of=\"{}\"}}", quoted(vm.name),
                                  quoted(vm.id.uuid), quoted(vm.host), whose),
                      bytes(static_cast<double>(pages)));
    };
    sample("own", vm.memory->own);
    sample("template", vm.memory->of_template);
    sample("ksm", vm.memory->ksm);
  }
}

Result<void> add_moves(Ledger& ledger, Families& families) {
  std::map<std::string, double> moves;
  placer::MoveFigures sum;
  for (const placer::PlanId id : TRY(ledger.journal().newest(kPlansCounted))) {
    const auto plan = TRY(ledger.journal().plan(id));
    for (const placer::MoveRecord& move : plan.moves) {
      ++moves[std::string(to_string(move.state))];
      if (!move.figures) continue;
      sum.stream_bytes += move.figures->stream_bytes;
      sum.wire_bytes += move.figures->wire_bytes;
    }
  }
  families.begin("samepage_moves", "gauge", "Moves in the journal, by state.");
  for (const auto& [state, count] : moves) {
    families.sample(fmt::format("{{state=\"{}\"}}", state), count);
  }
  families.begin("samepage_moves_stream_bytes", "gauge",
                 "Bytes of QEMU's migration streams, over the moves in the journal.");
  families.sample("", static_cast<double>(sum.stream_bytes));
  families.begin("samepage_moves_wire_bytes", "gauge",
                 "Bytes on the wire for them, over the moves in the journal.");
  families.sample("", static_cast<double>(sum.wire_bytes));
  return {};
}

}  // namespace

Result<std::string> metrics_text(Placer& placer) {
  Families families;
  const placer::Fleet fleet = placer.fleet();
  add_hosts(fleet, families);
  add_vms(fleet, families);
  const auto ledger = TRY(placer.open_ledger());
  TRY(add_moves(*ledger, families));
  return families.take();
}

}  // namespace samepage::control
