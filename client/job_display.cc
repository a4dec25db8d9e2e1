#include "client/job_display.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace lwq::client {
namespace {

constexpr absl::Duration kRedraw = absl::Seconds(1);
// In a pipe or a log: the longest silence.
constexpr absl::Duration kSilence = absl::Seconds(30);
// Ten pictures a second are enough.
constexpr absl::Duration kLeastBetween = absl::Milliseconds(100);

}  // namespace

bool StderrIsTerminal() {
  const char* term = ::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && term != nullptr && absl::string_view(term) != "dumb";
}

int TerminalWidth() {
  struct winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

JobDisplay::JobDisplay(std::ostream* stream, bool redraw)
    : stream_(stream), redraw_(redraw), thread_([this] { Run(); }) {}

JobDisplay::~JobDisplay() {
  {
    MutexLock lock(&mu_);
    done_ = true;
  }
  wake_.SignalAll();
  thread_.join();
}

void JobDisplay::Run() {
  MutexLock lock(&mu_);
  while (!done_) {
    wake_.WaitFor(&mu_, kRedraw);
    if (done_ || !watching_) continue;
    if (redraw_) {
      Draw();
    } else if (absl::Now() - last_draw_ >= kSilence) {
      PrintStatus();
    }
  }
}

void JobDisplay::OnEvent(const v1::JobEvent& event) {
  MutexLock lock(&mu_);
  const absl::Time now = absl::Now();
  view_.Apply(event, now);
  watching_ = true;
  if (!redraw_) {
    for (const v1::RunningTask& task : standing_.Take(view_.progress())) {
      *stream_ << RunningText(task) << std::endl;
    }
    const std::string line = ProgressView::EventLine(event);
    if (line.empty()) return;
    last_draw_ = now;
    *stream_ << line << std::endl;
    return;
  }
  if (now - last_draw_ >= kLeastBetween) Draw();
}

void JobDisplay::PrintStatus() {
  last_draw_ = absl::Now();
  // Without the bars, and as wide as it is.
  const std::vector<std::string> lines = view_.Lines(0, last_draw_);
  const std::string status = view_.StatusLine(last_draw_);
  *stream_ << status;
  if (!lines.empty() && lines.back().rfind("now: ", 0) == 0) {
    *stream_ << "  " << lines.back().substr(5);
  }
  *stream_ << std::endl;
}

void JobDisplay::Note(const std::string& text) {
  MutexLock lock(&mu_);
  Erase();
  *stream_ << text << std::endl;
  if (redraw_ && watching_) Draw();
}

void JobDisplay::Finish() {
  MutexLock lock(&mu_);
  if (redraw_ && watching_) Draw();
  drawn_lines_ = 0;
  watching_ = false;
}

void JobDisplay::Erase() {
  if (drawn_lines_ > 0) *stream_ << "\r\x1b[" << drawn_lines_ << "A\x1b[J";
  drawn_lines_ = 0;
}

void JobDisplay::Draw() {
  Erase();
  last_draw_ = absl::Now();
  const std::vector<std::string> lines = view_.Lines(TerminalWidth() - 1, last_draw_);
  for (const std::string& line : lines) *stream_ << line << "\n";
  *stream_ << std::flush;
  drawn_lines_ = static_cast<int>(lines.size());
}

}  // namespace lwq::client
