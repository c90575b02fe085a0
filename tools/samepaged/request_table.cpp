#include "tools/samepaged/request_table.h"

#include <utility>

#include "core/check.h"

namespace samepage::agent {

void RequestTable::add(Body body, Answer answer, Queue queue) {
  const bool is_new = entries_.emplace(body, Entry{std::move(answer), queue}).second;
  CHECK(is_new);
}

RequestTable::Queue RequestTable::queue_of(const bus::Envelope& request) const {
  const auto found = entries_.find(request.body_case());
  return found == entries_.end() ? Queue::kDesk : found->second.queue;
}

Result<bus::Envelope> RequestTable::answer(const bus::Envelope& request) const {
  const auto found = entries_.find(request.body_case());
  if (found == entries_.end()) {
    return fail(Errc::kInvalid, "this agent does not know such a request; is it older?");
  }
  return found->second.answer(request);
}

bus::Envelope done() {
  bus::Envelope envelope;
  envelope.mutable_done();
  return envelope;
}

}  // namespace samepage::agent
