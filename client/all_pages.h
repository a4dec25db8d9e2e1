// Lists that come in pages.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/client.h"

namespace lwq::client {

// Pages that are asked for at most: a server that has always another one does not hold lwqctl for
// ever.
inline constexpr int kMostPages = 10'000;

// Asks for page after page, from request's own on, and calls take(Response page) with each. Page
// size and filters are the request's. PAGE_TOKEN_INVALID where the server gives a page's own token
// again, or more than most_pages pages.
template <typename Request, typename Response, typename Take>
absl::Status EachPage(Client* client, absl::StatusOr<Response> (Client::*list)(const Request&),
                      Request request, const Take& take, int most_pages = kMostPages) {
  for (int pages = 1; pages <= most_pages; ++pages) {
    LWQ_ASSIGN_OR_RETURN(Response page, (client->*list)(request));
    const std::string next = page.next_page_token();
    take(std::move(page));
    if (next.empty()) return absl::OkStatus();
    if (next == request.page_token()) break;
    request.set_page_token(next);
  }
  return Failure(reasons::kPageTokenInvalid,
                 "the server says that a page of a list is followed by that page again, or by "
                 "others without end");
}

// The elements of all pages in one response, without a token.
template <typename Request, typename Response>
absl::StatusOr<Response> AllPages(Client* client,
                                  absl::StatusOr<Response> (Client::*list)(const Request&),
                                  const Request& request) {
  Response all;
  LWQ_RETURN_IF_ERROR(
      EachPage(client, list, request, [&](const Response& page) { all.MergeFrom(page); }));
  all.clear_next_page_token();
  return all;
}

}  // namespace lwq::client
