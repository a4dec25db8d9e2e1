// lwqctl: the command line of lwq. Everything is in client/commands.
#include <iostream>
#include <string>
#include <vector>

#include "client/commands/command.h"

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  return lwq::client::RunProgram(words, &std::cout, &std::cerr);
}
