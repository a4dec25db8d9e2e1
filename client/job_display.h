// Shows a job's progress: bars that are redrawn on a terminal, lines elsewhere.
#pragma once

#include <ostream>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/progress.h"
#include "client/work_text.h"

namespace lwq::client {

// Time goes on between events, so a thread of its own redraws the bars each second, and elsewhere
// adds a line each half minute in which nothing happened. Thread-safe.
class JobDisplay {
 public:
  // `redraw`: the stream is a terminal.
  JobDisplay(std::ostream* stream, bool redraw);
  ~JobDisplay();
  JobDisplay(const JobDisplay&) = delete;
  JobDisplay& operator=(const JobDisplay&) = delete;

  void OnEvent(const v1::JobEvent& event);
  // A line of its own, above the bars.
  void Note(const std::string& text);
  // The last state of the bars; nothing is drawn over them afterwards.
  void Finish();

 private:
  void Run();
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Erase() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PrintStatus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::ostream* const stream_;
  const bool redraw_;
  Mutex mu_;
  CondVar wake_;
  ProgressView view_ ABSL_GUARDED_BY(mu_);
  Standing standing_ ABSL_GUARDED_BY(mu_);  // of a pipe or a log
  int drawn_lines_ ABSL_GUARDED_BY(mu_) = 0;
  bool watching_ ABSL_GUARDED_BY(mu_) = false;  // between the first event and Finish
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_draw_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // or the last line
  std::thread thread_;                                                // last: it uses the others
};

// Whether stderr is a terminal that understands cursor movement, and its width (80 when unknown).
bool StderrIsTerminal();
int TerminalWidth();

}  // namespace lwq::client
