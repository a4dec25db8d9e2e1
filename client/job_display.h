// Shows a job's progress: bars that are redrawn on a terminal, one line an event elsewhere.
#pragma once

#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "client/progress.h"

namespace lwq::client {

class JobDisplay {
 public:
  // `redraw`: the stream is a terminal.
  JobDisplay(std::ostream* stream, bool redraw) : stream_(stream), redraw_(redraw) {}

  void OnEvent(const v1::JobEvent& event);
  // A line of its own, above the bars.
  void Note(const std::string& text);
  // The last state of the bars; nothing is drawn over them afterwards.
  void Finish();
  const ProgressView& view() const { return view_; }

 private:
  void Draw();
  void Erase();

  std::ostream* const stream_;
  const bool redraw_;
  ProgressView view_;
  int drawn_lines_ = 0;
  absl::Time last_draw_ = absl::InfinitePast();
};

// Whether stderr is a terminal that understands cursor movement, and its width (80 when unknown).
bool StderrIsTerminal();
int TerminalWidth();

}  // namespace lwq::client
