#include "imagestore/store_messages.h"

#include <algorithm>
#include <utility>

#include "imagestore/store_socket.h"

namespace samepage::imagestore {
namespace {

template <class Message>
Result<Message> parse(std::span<const std::byte> bytes) {
  Message message;
  if (bytes.size() > kStoreFrameBytesMax ||
      !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(Errc::kCorrupt, "not a store message");
  }
  return message;
}

}  // namespace

bus::StoreTicket to_message(const FabricTicket& ticket) {
  bus::StoreTicket message;
  message.set_fabric(ticket.fabric);
  message.set_key(ticket.key);
  message.set_address(ticket.address);
  message.set_bytes(ticket.bytes);
  message.set_endpoint(ticket.endpoint);
  message.set_pass_offset(ticket.pass_offset);
  return message;
}

FabricTicket from_message(const bus::StoreTicket& message, Fd descriptor) {
  FabricTicket ticket;
  ticket.fabric = message.fabric();
  ticket.key = message.key();
  ticket.address = message.address();
  ticket.bytes = message.bytes();
  ticket.endpoint = message.endpoint();
  ticket.pass_offset = message.pass_offset();
  ticket.descriptor = std::move(descriptor);
  return ticket;
}

Result<ObjectName> read_name(const std::string& bytes) {
  ObjectName name;
  if (bytes.size() != name.bytes.size()) {
    return fail(Errc::kInvalid, "the name of an extent has 32 bytes");
  }
  std::ranges::copy(std::as_bytes(std::span(bytes)), name.bytes.begin());
  return name;
}

Result<bus::StoreRequest> parse_store_request(std::span<const std::byte> bytes) {
  return parse<bus::StoreRequest>(bytes);
}

Result<bus::StoreReply> parse_store_reply(std::span<const std::byte> bytes) {
  return parse<bus::StoreReply>(bytes);
}

bus::Failure to_failure(const Error& error) {
  bus::Failure failure;
  failure.set_code(static_cast<std::uint32_t>(error.code()));
  failure.set_message(error.message());
  return failure;
}

Error from_failure(const bus::Failure& failure) {
  const bool is_known = failure.code() <= static_cast<std::uint32_t>(Errc::kIo);
  return {is_known ? static_cast<Errc>(failure.code()) : Errc::kIo, failure.message()};
}

}  // namespace samepage::imagestore
