#include "client/job_display.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace lwq::client {

bool StderrIsTerminal() {
  const char* term = ::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && term != nullptr && absl::string_view(term) != "dumb";
}

int TerminalWidth() {
  struct winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

void JobDisplay::OnEvent(const v1::JobEvent& event) {
  view_.Apply(event);
  if (!redraw_) {
    const std::string line = ProgressView::EventLine(event);
    if (!line.empty()) *stream_ << line << std::endl;
    return;
  }
  // Ten pictures a second are enough; the end is drawn by Finish.
  const absl::Time now = absl::Now();
  if (now - last_draw_ < absl::Milliseconds(100)) return;
  last_draw_ = now;
  Draw();
}

void JobDisplay::Note(const std::string& text) {
  Erase();
  *stream_ << text << std::endl;
  if (redraw_) Draw();
}

void JobDisplay::Finish() {
  if (redraw_) Draw();
  drawn_lines_ = 0;
}

void JobDisplay::Erase() {
  if (drawn_lines_ > 0) *stream_ << "\r\x1b[" << drawn_lines_ << "A\x1b[J";
  drawn_lines_ = 0;
}

void JobDisplay::Draw() {
  Erase();
  const std::vector<std::string> lines = view_.Lines(TerminalWidth() - 1);
  for (const std::string& line : lines) *stream_ << line << "\n";
  *stream_ << std::flush;
  drawn_lines_ = static_cast<int>(lines.size());
}

}  // namespace lwq::client
