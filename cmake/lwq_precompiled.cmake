# Precompiled headers: what most files of a group of targets include is read once. A group has one set
# of compiler flags, because GCC takes a precompiled header under the very same flags only. Off where a
# compiler cache is of more use (it cannot share such objects between checkouts).
option(LWQ_PRECOMPILE "Precompile the headers that most files include" OFF)
option(LWQ_PRECOMPILE_TESTS "Precompile the headers that most tests include" ${LWQ_PRECOMPILE})
if(LWQ_PRECOMPILE_TESTS)
  include(lwq_precompiled_tests)
endif()
if(NOT LWQ_PRECOMPILE)
  return()
endif()

# lwq_precompile(GROUP x DEPS libraries that give the flags... TARGETS a b c): the targets share
# cmake/precompiled/<x>.h.
function(lwq_precompile)
  cmake_parse_arguments(A "" "GROUP" "DEPS;TARGETS" ${ARGN})
  set(owner lwq_precompiled_${A_GROUP})
  add_library(${owner} STATIC ${CMAKE_SOURCE_DIR}/cmake/precompiled/empty.cc)
  target_link_libraries(${owner} PRIVATE ${A_DEPS})
  target_precompile_headers(${owner} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/precompiled/${A_GROUP}.h)
  foreach(target ${A_TARGETS})
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endforeach()
endfunction()

set(common lwq_options spdlog::spdlog absl::status absl::statusor absl::strings absl::str_format
           absl::time absl::flat_hash_map)
set(numeric DNNL::dnnl hwy::hwy PkgConfig::OPENBLAS OpenMP::OpenMP_CXX)
lwq_precompile(GROUP base DEPS ${common}
               TARGETS lwq_base lwq_tensor lwq_format lwq_plan lwq_blob)
lwq_precompile(GROUP engine DEPS ${common} ${numeric} TARGETS lwq_engine)
lwq_precompile(GROUP service DEPS ${common} lwq_proto Threads::Threads
               TARGETS lwq_records lwq_store lwq_dispatch lwq_service lwq_client lwq_client_commands)
lwq_precompile(GROUP worker DEPS ${common} ${numeric} lwq_proto Threads::Threads
               TARGETS lwq_runner lwq_worker)
lwq_precompile(GROUP proto DEPS protobuf::libprotobuf gRPC::grpc++ TARGETS lwq_proto)

# Compiled with a precompiled header GCC 12 no longer sees that std::string's own code lies in a system
# header, and warns of a bound in it that cannot be.
set_source_files_properties(
  ${CMAKE_SOURCE_DIR}/worker/engine/tokenizer/text_steps.cc
  TARGET_DIRECTORY lwq_engine PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
